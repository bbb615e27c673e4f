"""Rule: rounds to a goal are counted as McMahan et al. (2017) did: best so far, interpolated between two rounds."""

import pytest

from benchmarks.crossing import crossing


@pytest.mark.parametrize(
    ("accuracies", "rounds"),
    [
        ([0.10, 0.80, 0.90], 1.5),  # 0.85 is halfway between rounds 1 and 2
        ([0.10, 0.85], 1.0),
        ([0.10, 0.84, 0.50, 0.88], 2.25),  # the best before round 3 is 0.84, not 0.50: a quarter of the way to 0.88
        ([0.10, 0.86, 0.10, 0.99], 0.75 / 0.76),  # what comes after it does not count
        ([0.90, 0.95], 0.0),
        ([0.10, 0.84], None),
        ([], None),
    ],
)
def test_the_best_so_far_crosses_85_percent(accuracies: list[float], rounds: float | None) -> None:
    assert crossing(accuracies, 0.85) == (None if rounds is None else pytest.approx(rounds))
