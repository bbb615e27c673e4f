"""Which crashes are played: at every point that a run passes, again while it resumes, and at random times."""

import random
from collections import Counter
from pathlib import Path

from tests.faults.crash_trials import Crash, Stage
from tests.faults.federation import NODES
from tests.faults.injector import Fault

SEED = 42
VICTIM = NODES[0]
# Round 2 is committed, and neither its best.pt nor what TensorBoard shows of round 3 is there: a resume has work to do.
MID_RUN = Fault("server/storage/durable.py:replace_keeping replace last.pt after", 3)
_CHANCE = ("beat", "progress", "receive before", "connect", "mkdir state")  # how often they are passed varies


def crashes(stage: Stage, num_random: int = 0) -> dict[str, list[Crash]]:
    """All of them by family, the same for the same code: each point at one of its passages, drawn by a seed."""
    drawn = random.Random(SEED)
    server, node = passed(stage.reference_points("server")), passed(stage.reference_points(VICTIM))
    resumed = passed(stage.resumed_points(MID_RUN))
    first_lives = [Crash("server", (_at(point, times, drawn),)) for point, times in server]
    second_lives = [Crash("server", (MID_RUN, _at(point, times, drawn))) for point, times in resumed]
    nodes = [Crash(VICTIM, (_at(point, times, drawn),)) for point, times in node]
    return {
        "server killed at every point": first_lives,
        "server killed again, at every point of its resume": second_lives,
        "node killed at every point": nodes,
        "server killed at random times": _at_random("server", num_random, drawn),
        "node killed at random times": _at_random(VICTIM, num_random, drawn),
    }


def passed(record: Path) -> list[tuple[str, int]]:
    """(point, how often it was passed), by name."""
    return sorted(Counter(record.read_text().splitlines()).items())


def _at(point: str, times: int, drawn: random.Random) -> Fault:
    varies = any(word in point for word in _CHANCE)
    return Fault(point, 1 if varies else drawn.randint(1, times))


def _at_random(who: str, count: int, drawn: random.Random) -> list[Crash]:
    """From the first moment of a life to about its end."""
    return [Crash(who, after_seconds=drawn.uniform(0.0, 1.2)) for _ in range(count)]
