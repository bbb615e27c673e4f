"""How benchmarks measure: arms take turns, one that disagrees with itself runs again, and the machine's load is kept.

The rules, in one place:

* All arms of a comparison run in one go, in turns, at least twice each; figures are medians, the least and p99 beside.
* An arm whose last two turns differ by over 20 % runs again, and so does a rival that is over 15 % slower than it was
  seen on a quiet machine: at most ``ATTEMPTS`` turns. What still disagrees then is marked, and all its turns count.
* The load average is written down before and after.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

STEADY = 0.2  # of the lesser: how far two turns of an arm may be apart
CREDIBLE = 0.15  # how much slower than on a quiet machine a rival may seem
ATTEMPTS = 4  # turns of an arm, at most


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    name: str
    run: Callable[[], Sequence[float]]  # one turn: the seconds of everything that it measured
    quiet_seconds: float = 0.0  # a rival's median on a quiet machine; 0: not known, or this is no rival


@dataclass
class Measured:
    """What the turns of an arm gave."""

    arm: Arm
    turns: list[list[float]] = field(default_factory=list)
    load_before: float = 0.0
    load_after: float = 0.0

    @property
    def is_steady(self) -> bool:
        """Whether the last two turns agree."""
        return len(self.turns) > 1 and agree(*(median(turn) for turn in self.turns[-2:]))

    @property
    def is_credible(self) -> bool:
        """Whether a rival is about as fast as it can be."""
        quiet = self.arm.quiet_seconds
        return not quiet or self.median <= (1 + CREDIBLE) * quiet

    @property
    def is_done(self) -> bool:
        """Whether it need not, or must not, run again."""
        return (self.is_steady and self.is_credible) or len(self.turns) >= ATTEMPTS

    @property
    def seconds(self) -> list[float]:
        """What counts, sorted: of the last two turns where these agree, of all where not."""
        counted = self.turns[-2:] if self.is_steady else self.turns
        return sorted(each for turn in counted for each in turn)

    @property
    def median(self) -> float:
        """Seconds."""
        return median(self.seconds)

    def figures(self) -> dict[str, Any]:
        """For a table and for JSON."""
        return {
            "arm": self.arm.name,
            "median": self.median,
            "min": self.seconds[0],
            "p99": percentile(self.seconds, 0.99),
            "turns": [median(turn) for turn in self.turns],
            "steady": self.is_steady,
            "credible": self.is_credible,
            "load_before": self.load_before,
            "load_after": self.load_after,
        }


def take_turns(arms: Sequence[Arm]) -> list[Measured]:
    """Measure ``arms`` beside each other, by the rules above."""
    measured = [Measured(arm) for arm in arms]
    while waiting := [each for each in measured if not each.is_done]:
        for each in waiting:
            before = os.getloadavg()[0]
            each.turns.append(list(each.arm.run()))
            each.load_before = each.load_before if len(each.turns) > 1 else before
            each.load_after = os.getloadavg()[0]
    return measured


def agree(one: float, other: float) -> bool:
    """Whether two figures of the same thing are close enough."""
    return abs(one - other) <= STEADY * min(one, other)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least of ``ordered`` that ``share`` (0..1) of them do not exceed."""
    return ordered[math.ceil(round(share * len(ordered), 9)) - 1]


def mark(figures: dict[str, Any]) -> str:
    """What a table must say of an arm that broke a rule; '' if it broke none."""
    faults = {"unsteady": not figures["steady"], "slower than when it was quiet": not figures["credible"]}
    return ", ".join(fault for fault, is_so in faults.items() if is_so)
