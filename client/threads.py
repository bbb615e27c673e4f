"""How many CPU threads train soonest on this machine now: a short probe, and when to look again."""

import math
import time
from collections.abc import Callable

import torch

from common import models
from common.lenet5_gradients import by_hand

GAIN = 1.2  # more threads must be this many times as fast to be worth other sums
REPEATS = 3
SLOWER = 2.0  # a fit that takes this many times as long an image as the quickest one calls for another look
_NUM_STEPS, _BATCH = 20, 16  # 30 ms here, ten times that on a small board

# (threads, seconds that are enough to know) -> seconds that some training steps took; inf if they took longer
Measure = Callable[[int, float], float]


class Threads:
    """The number of threads of a node's fits, found by a probe, and found anew when fits get slower.

    Attributes:
        count: >= 1.
    """

    def __init__(self, cores: int, measure: "Measure | None" = None) -> None:
        """Probe now. Args: cores: how many this process may use; measure: what times some steps; None = ours."""
        self._cores, self._measure = cores, measure or seconds_of_steps
        self._run, self._quickest = "", math.inf
        self.count = choose(cores, self._measure)

    def told(self) -> str:
        """The count, for a person."""
        cores = f"{self._cores} core{'s' if self._cores > 1 else ''}"
        return f"training with {_counted(self.count)} on {cores}: the fastest in a short probe (client.threads is 0)"

    def finished(self, run: str, seconds: float, num_examples: int) -> str:
        """Take in how long a fit took; returns what there is to say of it, or "".

        Args:
            run: which run it was for: another one may train another network.
            seconds: > 0, the fit's.
            num_examples: >= 1.
        """
        if run != self._run:
            self._run, self._quickest = run, math.inf
        each = seconds / num_examples
        if each < SLOWER * self._quickest:
            self._quickest = min(each, self._quickest)
            return ""
        times, before = each / self._quickest, self.count
        self._quickest = each  # the new measure: a machine that stays busy is not probed again and again
        self.count = choose(self._cores, self._measure)
        changed = f"from {_counted(before)} to {self.count}" if self.count != before else f"still {_counted(before)}"
        return f"training became {times:.1f} times as slow: {changed}"


def choose(cores: int, measure: Measure) -> int:
    """1, or the most threads of 2, 4, … up to ``cores`` that are clearly faster than fewer.

    Of one thread the best of three measurements counts, of more the worst: where other processes want the same cores,
    threads wait for each other, now and then for very long.
    """
    best, best_seconds = 1, min(measure(1, math.inf) for _ in range(REPEATS))
    for threads in sorted({cores, *(2**power for power in range(1, cores.bit_length()) if 2**power <= cores)} - {1}):
        enough = best_seconds / GAIN
        worst = 0.0
        for _ in range(REPEATS):
            worst = max(worst, measure(threads, enough))
            if worst > enough:
                return best
        best, best_seconds = threads, worst
    return best


def _counted(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def seconds_of_steps(threads: int, enough: float) -> float:
    """How long some steps of LeNet-5 take with ``threads`` threads, after one that is not counted."""
    model = models.build("lenet5")
    gradients_of = by_hand(model)
    assert gradients_of
    x, y = torch.zeros(_BATCH, 1, model.input_size, model.input_size), torch.zeros(_BATCH, dtype=torch.int64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        gradients_of(x, y)
        start = time.perf_counter()
        for _ in range(_NUM_STEPS):
            gradients_of(x, y)
            if time.perf_counter() - start > enough:
                return math.inf
        return time.perf_counter() - start
    finally:
        torch.set_num_threads(before)
