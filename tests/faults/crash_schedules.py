"""Which crashes are played: at every point that a run passes, again while it resumes, and at random times."""

import random
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from tests.faults.crash_trials import Crash, Stage
from tests.faults.federation import NODES
from tests.faults.injector import Deed, Fault

Found = TypeVar("Found")
SEED = 42
VICTIM = NODES[0]
# Round 2 is committed, and neither its best.pt nor what TensorBoard shows of round 3 is there: a resume has work to do.
MID_RUN = Fault("server/storage/durable.py:replace_keeping replace last.pt after", 3)
_CHANCE = ("beat", "progress", "receive before", "connect", "mkdir state", "members.json", "enrol", "server serve")
# How often these are passed differs between two runs, whether at all on a resume.


def crashes(stage: Stage, num_random: int = 0) -> dict[str, list[Crash]]:
    """All of them by family: each point at one of its passages, drawn by a seed."""
    server, node = stage.reference_points("server"), stage.reference_points(VICTIM)
    return {
        "server killed at every point": [Crash("server", (fault,)) for fault in faults(server)],
        "server killed again, at every point of its resume": [
            Crash("server", (MID_RUN, fault)) for fault in faults(stage.resumed_points(MID_RUN))
        ],
        "node killed at every point": [Crash(VICTIM, (fault,)) for fault in faults(node)],
        "server killed at random times": _at_random("server", num_random),
        "node killed at random times": _at_random(VICTIM, num_random),
    }


def faults(record: Path, deed: Deed = "kill", wanted: Callable[[str], bool] = lambda _: True) -> list[Fault]:
    """One at every point in a record, at a passage that the point's name and ``SEED`` draw; by name."""
    passed = Counter(record.read_text().splitlines())
    return [
        Fault(point, 1 if is_chance(point) else random.Random(f"{SEED} {point}").randint(1, times), deed)
        for point, times in sorted(passed.items())
        if wanted(point)
    ]


def is_chance(point: str) -> bool:
    """Whether it depends on time how often a run passes the point."""
    return any(word in point for word in _CHANCE)


def sample(found: list[Found], name_of: Callable[[Found], str], count: int) -> list[Found]:
    """So many of them, none of chance: the same ones also where some are new or gone."""
    sure = [each for each in found if not is_chance(name_of(each))]
    return sorted(sure, key=lambda each: sha256(f"{SEED} {name_of(each)}".encode()).digest())[:count]


def _at_random(who: str, count: int) -> list[Crash]:
    """From the first moment of a life to about its end."""
    drawn = random.Random(f"{SEED} {who}")
    return [Crash(who, after_seconds=drawn.uniform(0.0, 1.2)) for _ in range(count)]
