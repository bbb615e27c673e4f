"""When a curve of accuracies reaches a goal, by the method of McMahan et al. (2017)."""

from collections.abc import Sequence
from itertools import accumulate


def crossing(accuracies: Sequence[float], goal: float) -> float | None:
    """Rounds until the best accuracy so far reaches ``goal``, interpolated linearly between rounds (their section 3).

    Args:
        accuracies: 0..1, after round 0, 1, …
        goal: 0..1.

    Returns:
        Rounds >= 0, seldom a whole number; None if it is not reached.
    """
    best = list(accumulate(accuracies, max))
    after = next((number for number, accuracy in enumerate(best) if accuracy >= goal), None)
    if not after:
        return after
    before = best[after - 1]
    return after - 1 + (goal - before) / (best[after] - before)
