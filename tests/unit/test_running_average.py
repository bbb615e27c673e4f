"""Rule: the running average is that of Shamir & Zhang until its window is full, and goes on from a checkpoint."""

import pytest
import torch

from common.errors import RunDirectoryError
from server.memory import Plain
from server.running_average import RunningAverage
from tests.scripted_grid import toy_state


def values(average: RunningAverage, *models: tuple[int, float]) -> list[float]:
    """The average's first weight after each (round, newest model)."""
    return [float(average.including(number, toy_state(value))["bias"][0]) for number, value in models]


def test_the_first_models_hardly_stay_in_it_and_later_ones_by_the_share_asked_for() -> None:
    average = RunningAverage(0.5, toy_state(100.0))  # the untrained model is never in it
    assert values(average, (1, 3.0), (2, 6.0), (3, 9.0), (4, 9.0)) == [
        3.0,
        5.0,  # 1/3 of 3 and 2/3 of 6
        7.0,  # 1/2 of 5 and of 9
        8.0,  # 3/5 would be kept, but a half is asked for
    ]


def test_it_goes_on_from_what_it_remembered() -> None:
    average = RunningAverage(0.75, toy_state())
    values(average, (1, 3.0), (2, 6.0))
    resumed = RunningAverage(0.75, toy_state(6.0), average.memory)
    assert values(resumed, (3, 9.0)) == values(average, (3, 9.0)) == [7.0]


@pytest.mark.parametrize(
    "remembered",
    [
        {},
        [torch.zeros(10)],
        {"weight": torch.zeros(2, 3), "bias": torch.zeros(9)},
        {"weight": torch.zeros(2, 3), "bias": 1.0},
        {"weight": torch.zeros(2, 3), "bias": torch.zeros(10, dtype=torch.float64)},
    ],
    ids=["nothing", "a list", "another shape", "a number", "another type"],
)
def test_what_is_no_average_of_such_models_is_refused(remembered: Plain) -> None:
    with pytest.raises(RunDirectoryError, match="the checkpoint's running_average is no model of this run"):
        RunningAverage(0.5, toy_state(), remembered)
