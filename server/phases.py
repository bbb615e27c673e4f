"""Where a round's time goes, as the server can know it: by its own clock, and by durations that nodes measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from server.grids import Answer, Seen


@dataclass(frozen=True)
class Phases:
    """Seconds of one round, nan where nobody knows them; ``docs/run-directory.md`` defines each.

    Attributes:
        broadcast: from the first byte out until the last node said that it has its task.
        train: training alone, of the slowest node.
        train_median: the same of the middle node; part of no sum.
        upload: the last update's way, from the node's word that it is done.
        wait: what of the exchange is none of these.
        average: reading updates, the screen, the average.
        evaluate: testing the new model, here and on nodes.
        write: what came between the round before and this one's tasks: files, pictures, verdicts.
    """

    broadcast: float = math.nan
    train: float = math.nan
    train_median: float = math.nan
    upload: float = math.nan
    wait: float = math.nan
    average: float = math.nan
    evaluate: float = math.nan
    write: float = math.nan


# The key in metrics.jsonl of every phase; together they are the whole of a round.
KEYS = {
    "broadcast": "broadcast_seconds",
    "train": "fit_seconds",
    "upload": "upload_seconds",
    "wait": "wait_seconds",
    "average": "average_seconds",
    "evaluate": "evaluate_seconds",
    "write": "write_seconds",
}


def split(start: float, exchanged: float, end: float, answers: Sequence[Answer], fits: Mapping[int, float]) -> Phases:
    """The phases of a round up to its average.

    The last node is the one whose update came last of those averaged: the round's critical path. Where an engine does
    not see a node take its task and finish, ``broadcast`` and ``upload`` are nan and their time is in ``wait``.

    Args:
        start: when the first task went out, on ``time.monotonic()``, as all times here.
        exchanged: when the grid gave the answers.
        end: when the average was done.
        answers: of the exchange.
        fits: seconds of training behind the updates that were averaged, by node id.
    """
    ends = {a.node_id: a.seen.ended_at for a in answers if math.isfinite(a.seen.ended_at)}
    gathered = max(ends.values(), default=exchanged)
    last = max(fits.keys() & ends.keys(), key=ends.__getitem__, default=None)
    seen = next((answer.seen for answer in answers if answer.node_id == last), Seen())
    broadcast, upload = seen.taken_at - start, seen.ended_at - seen.done_at
    train = max(fits.values(), default=0.0)
    known = sum(seconds for seconds in (broadcast, train, upload) if math.isfinite(seconds))
    return Phases(
        broadcast=broadcast,
        train=train,
        train_median=median(fits.values()) if fits else 0.0,
        upload=upload,
        wait=max(0.0, gathered - start - known),
        average=end - gathered,
    )


def totals(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds of every phase over ``rounds``, the longest first; without those that nobody knows or that took none."""
    sums = {
        name: sum(seconds for phases in rounds if math.isfinite(seconds := phases.get(name, math.nan))) for name in KEYS
    }
    return {name: sums[name] for name in sorted(sums, key=lambda name: -sums[name]) if sums[name] > 0}
