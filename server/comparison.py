"""Figures of several runs side by side, read from their run directories, whoever wrote those, into one table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import RunDirectoryError

METRICS = "metrics.jsonl"
MAX_BYTES = 2**26  # of a metrics.jsonl that are read: far over 100,000 rounds of ours
MAX_ROUND = 10**6
MAX_NAME = 60  # characters of a run's name that are shown
NOTE = (
    "MB are 10^6 bytes, both ways. Seconds are those of all rounds: training, sending and averaging, not testing. Where"
    " nothing is averaged, accuracy is the mean over the nodes' own models."
)


@dataclass(frozen=True)
class Point:
    """A run after one of its rounds; what is not known is nan.

    Attributes:
        round: 0..
        accuracy: 0..1 on the test set; where nothing is averaged, the mean over the nodes' own models.
        megabytes: 10^6 bytes sent up to now, both ways.
        seconds: of all rounds up to now.
        local_worst, local_best: accuracy of the worst and the best of the nodes' own models.
        node_worst: accuracy of the global model on the node where it is lowest, on what that node holds out.
    """

    round: int
    accuracy: float
    megabytes: float
    seconds: float
    local_worst: float
    local_best: float
    node_worst: float


@dataclass(frozen=True)
class Curve:
    """A run's points, in the order of rounds, at least one."""

    name: str
    points: tuple[Point, ...]

    @property
    def best(self) -> Point:
        """The first of those with the highest accuracy."""
        return max(self.points, key=lambda point: point.accuracy)

    @property
    def last(self) -> Point:
        """After the last round."""
        return self.points[-1]

    @property
    def is_local(self) -> bool:
        """Whether the nodes had models of their own."""
        return math.isfinite(self.last.local_worst)

    def first_at(self, accuracy: float) -> Point | None:
        """The first point of at least this accuracy (0..1)."""
        return next((point for point in self.points if point.accuracy >= accuracy), None)


def read_curve(run: Path) -> Curve:
    """The curve in a run directory; lines that make no sense are passed over, as is a torn tail.

    Raises:
        RunDirectoryError: there is no such directory, or no round in it.
    """
    try:
        with (run / METRICS).open("rb") as file:
            data = file.read(MAX_BYTES)
    except FileNotFoundError:
        raise RunDirectoryError(f"{run} is not a run directory (no {METRICS} in it)") from None
    except OSError as error:
        raise RunDirectoryError(f"cannot read {run / METRICS}: {error.strerror}") from None
    rounds = {row["round"]: row for row in _rows(data)}
    if not rounds:
        raise RunDirectoryError(f"{run / METRICS} holds no round with a test_accuracy: is it a run of Fedge?")
    return Curve(printable(run.resolve().name), tuple(_points(rounds)))


def printable(name: str) -> str:
    """``name`` on one line, as long as a legend can show."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:MAX_NAME]


def _rows(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.split(b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict) or type(row.get("round")) is not int or not 0 <= row["round"] <= MAX_ROUND:
            continue
        if math.isfinite(_share(row, "test_accuracy")):
            yield row


def _points(rounds: dict[int, dict[str, Any]]) -> Iterator[Point]:
    num_bytes = seconds = 0.0
    for number in sorted(rounds):
        row = rounds[number]
        if number:  # nothing is sent and nobody trains in round 0
            num_bytes += _amount(row, "bytes_up") + _amount(row, "bytes_down")
            seconds += _amount(row, "seconds")
        mean = _share(row, "local_accuracy_mean")
        yield Point(
            round=number,
            accuracy=mean if math.isfinite(mean) else _share(row, "test_accuracy"),
            megabytes=num_bytes / 1e6,
            seconds=seconds,
            local_worst=_share(row, "local_accuracy_worst"),
            local_best=_share(row, "local_accuracy_best"),
            node_worst=_share(row, "node_accuracy_worst"),
        )


def _share(row: dict[str, Any], key: str) -> float:
    value = _amount(row, key)
    return value if value <= 1 else math.nan


def _amount(row: dict[str, Any], key: str) -> float:
    """The number under ``key``, 0..1e18; nan if it is none."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e18:
        return math.nan
    return float(value)


def table(curves: Sequence[Curve], target: float) -> str:
    """A Markdown table, a row a run.

    Args:
        curves: the runs.
        target: 0..1, the accuracy whose rounds and megabytes are asked for.
    """
    at = f"{target * 100:g} %"
    columns: list[tuple[str, Callable[[Curve], str]]] = [
        ("Run", lambda curve: curve.name.replace("\\", "\\\\").replace("|", "\\|")),
        ("Best accuracy (round)", lambda curve: f"{_percent(curve.best.accuracy)} ({curve.best.round})"),
        ("Last accuracy", lambda curve: _percent(curve.last.accuracy)),
        (f"Rounds to {at}", lambda curve: _reached(curve, target, lambda point: f"{point.round}")),
        (f"MB to {at}", lambda curve: _reached(curve, target, lambda point: _number(point.megabytes))),
        ("Seconds", lambda curve: _number(curve.last.seconds)),
    ]
    if any(math.isfinite(curve.last.node_worst) for curve in curves):
        columns.append(("Worst node", lambda curve: _percent(curve.last.node_worst)))
    if any(curve.is_local for curve in curves):
        columns.append(("Best of the nodes alone", lambda curve: _percent(curve.last.local_best)))
        columns.append(("Worst of the nodes alone", lambda curve: _percent(curve.last.local_worst)))
    head = [[title for title, _ in columns], ["---"] * len(columns)]
    rows = [[cell(curve) for _, cell in columns] for curve in curves]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in head + rows)


def _reached(curve: Curve, target: float, show: Callable[[Point], str]) -> str:
    point = curve.first_at(target)
    return show(point) if point else f"> {show(curve.last)}"


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %" if math.isfinite(share) else "–"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.1f}" if 0 < value < 100 else f"{value:,.0f}"
