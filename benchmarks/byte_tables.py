"""The tables of codecs in Markdown, from the ``metrics.jsonl`` of their runs and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.byte_jobs import ARMS, GOAL, GOAL_ROUNDS, KINDS, ROUNDS, SEEDS, Arm, Kind, job
from benchmarks.figures import Form, of_seeds, percent, row
from benchmarks.job import Run

_TITLES: dict[Kind, str] = {"iid": "IID", "dirichlet": "Dirichlet 0.1"}
_NEVER = float("inf")  # sorts after every run that reached the goal
MEGABYTE, KILOBYTE = 1e6, 1e3


@dataclass(frozen=True)
class _Figure:
    """One column."""

    title: str
    of_run: Callable[[Run], float]
    is_known: Callable[[Run], bool]  # whether the run has come far enough
    form: Form


def tables(out: Path) -> str:
    """For each division of the data: bytes, accuracy after 15 rounds, and what it takes to reach the goal."""
    return "\n\n".join(f"{_TITLES[kind]}:\n\n{_table(kind, out)}" for kind in KINDS)


def _table(kind: Kind, out: Path) -> str:
    lines = [row("Updates", "Broadcast", *(figure.title for figure in _FIGURES)), "|" + "---|" * (2 + len(_FIGURES))]
    for arm in ARMS:
        cells = [_cell(arm, kind, figure, out) for figure in _FIGURES]
        lines.append(row(f"`{arm.codec}`", f"`{arm.broadcast_codec}`", *cells))
    return "\n".join(lines)


def _cell(arm: Arm, kind: Kind, figure: _Figure, out: Path) -> str:
    runs = [job(arm, kind, seed, GOAL_ROUNDS).rows(out) for seed in SEEDS]
    found = [figure.of_run(run) for run in runs if figure.is_known(run)]
    return f"{figure.form(found[0])} (1 seed)" if len(found) == 1 else of_seeds(found, len(SEEDS), figure.form)


def _has_fifteen(run: Run) -> bool:
    return len(run) > ROUNDS


def _has_ended(run: Run) -> bool:
    return _goal(run) is not None or len(run) > GOAL_ROUNDS


def _goal(run: Run) -> int | None:
    return next((number for number, row in enumerate(run) if row["test_accuracy"] >= GOAL), None)


def _kilobytes_each(key: str) -> Callable[[Run], float]:
    """Mean over nodes and the first 15 rounds; in these runs every node that is asked delivers, if not what counts."""

    def of_run(run: Run) -> float:
        rounds = run[1 : ROUNDS + 1]
        num_bytes: int = sum(row[key] for row in rounds)
        num_updates: int = sum(row["num_nodes"] + row["num_rejected"] for row in rounds)
        return num_bytes / num_updates / KILOBYTE

    return of_run


def _megabytes(run: Run, rounds: int) -> float:
    """Both ways."""
    num_bytes: int = sum(row["bytes_up"] + row["bytes_down"] for row in run[1 : rounds + 1])
    return num_bytes / MEGABYTE


def _points_a_megabyte(run: Run) -> float:
    return 100 * float(run[ROUNDS]["test_accuracy"]) / _megabytes(run, ROUNDS)


def _rounds_to_goal(run: Run) -> float:
    goal = _goal(run)
    return _NEVER if goal is None else goal


def _megabytes_to_goal(run: Run) -> float:
    goal = _goal(run)
    return _NEVER if goal is None else _megabytes(run, goal)


def _one_place(number: float) -> str:
    return f"{number:.1f}"


def _rounds(number: float) -> str:
    return f"> {GOAL_ROUNDS}" if number == _NEVER else f"{number:g}"


def _sum_of_megabytes(number: float) -> str:
    return "–" if number == _NEVER else f"{number:.1f} MB"


_FIGURES = (
    _Figure("KB an update", _kilobytes_each("bytes_up"), _has_fifteen, _one_place),
    _Figure("KB a broadcast", _kilobytes_each("bytes_down"), _has_fifteen, _one_place),
    _Figure(f"accuracy after {ROUNDS}", lambda run: float(run[ROUNDS]["test_accuracy"]), _has_fifteen, percent),
    _Figure("points a MB by then", _points_a_megabyte, _has_fifteen, _one_place),
    _Figure("rounds to 98.5 %", _rounds_to_goal, _has_ended, _rounds),
    _Figure("traffic till then", _megabytes_to_goal, _has_ended, _sum_of_megabytes),
)
