"""Rule: a learning rate depends on nothing but its place in the run, counted in rounds or in epochs."""

from collections.abc import Callable

import pytest
import torch

from common.layers import from_assignments, load
from common.schedules import learning_rate
from common.settings import TrainingSettings


def training(*assignments: str) -> TrainingSettings:
    given = [f"training.{text}" for text in ("learning_rate=0.8", *assignments)]
    return load(from_assignments([*given, "federation.rounds=1"])).training


@pytest.mark.parametrize(
    ("assignments", "rates"),
    [
        ([], [0.8, 0.8, 0.8, 0.8, 0.8]),
        (["schedule=exponential", "schedule_gamma=0.5"], [0.8, 0.4, 0.2, 0.1, 0.05]),
        (["schedule=step", "schedule_gamma=0.5", "schedule_every=2"], [0.8, 0.8, 0.4, 0.4, 0.2]),
        # half the way down after half the length; cos 45 degrees = 0.70711
        (["schedule=cosine", "schedule_length=4"], [0.8, 0.4 * 1.70711, 0.4, 0.4 * 0.29289, 0.0]),
    ],
)
def test_rounds(assignments: list[str], rates: list[float]) -> None:
    settings = training("local_epochs=3", *assignments)
    for number, rate in enumerate(rates, start=1):
        for epoch in range(3):
            assert learning_rate(settings, number, epoch) == pytest.approx(rate, abs=1e-5)


def test_epochs_count_over_all_rounds() -> None:
    settings = training("local_epochs=2", "schedule=exponential", "schedule_gamma=0.5", "schedule_unit=epoch")
    rates = [learning_rate(settings, number, epoch) for number in (1, 2, 3) for epoch in (0, 1)]
    assert rates == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.05, 0.025])


def test_a_cosine_stays_at_nothing_once_it_is_there() -> None:
    assert learning_rate(training("schedule=cosine", "schedule_length=4"), 9, 0) == 0.0


@pytest.mark.parametrize("name", ["exponential", "step", "cosine"])
def test_twenty_rounds_equal_those_of_torch(name: str) -> None:
    settings = training(f"schedule={name}", "schedule_gamma=0.9", "schedule_every=7", "schedule_length=20")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    make: dict[str, Callable[[], torch.optim.lr_scheduler.LRScheduler]] = {
        "exponential": lambda: torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9),
        "step": lambda: torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.9),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20),
    }
    schedule = make[name]()
    for number in range(1, 21):
        assert learning_rate(settings, number, 0) == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        schedule.step()
