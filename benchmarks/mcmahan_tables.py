"""The tables of rounds to 99 % in Markdown, from the kept results and nothing else."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

from benchmarks import results
from benchmarks.crossing import crossing
from benchmarks.figures import Form, of_seeds, percent, row
from benchmarks.mcmahan_jobs import GOAL, KINDS, LOWER_GOAL, PAPER, RESULTS, ROWS, SEEDS, Choice, Kind, job
from benchmarks.results import Result

TITLES: dict[Kind, str] = {"iid": "IID", "two-labels": "Two labels a node"}
MEGABYTE = 1e6


def tables(out: Path, file: Path = RESULTS) -> str:
    """Their rows, on each division of the data, as far as ``file`` has results."""
    del out  # a run that is there and not in the file is not finished
    return "\n\n".join(f"{TITLES[kind]}:\n\n{_table_of_rows(kind, file)}" for kind in KINDS)


def _table_of_rows(kind: Kind, file: Path) -> str:
    titles = ("E", "B", "Rate", "Their CNN: rounds to 99 %", "to 98.5 %", "to 99 %", "traffic to 99 %", "best")
    lines = [row(*titles), "|" + "---|" * len(titles)]
    for (epochs, batch), theirs in PAPER.items():
        choice = ROWS[epochs, batch]
        rate = choice.settings[-1].partition("=")[2]
        lines.append(row(str(epochs), str(batch), rate, str(theirs[KINDS.index(kind)]), *measured(choice, kind, file)))
    return "\n".join(lines)


def measured(choice: Choice, kind: Kind, file: Path) -> list[str]:
    """Cells: rounds to both goals, traffic to the higher one, best accuracy till then or till the run gave up."""
    kept = results.read(file)
    asked = [job(choice, kind, seed, file) for seed in SEEDS]
    found = [result for each in asked if (result := each.result(kept))]
    rounds = _form_of_rounds(choice.caps[kind])
    return [
        _cell([_rounds(result, LOWER_GOAL) for result in found], rounds),
        _cell([_rounds(result, GOAL) for result in found], rounds),
        _cell([_megabytes(result) for result in found], _form_of_traffic),
        _cell([max(result.accuracy) for result in found], percent),
    ]


def _cell(found: Sequence[float], form: Form) -> str:
    return f"{form(found[0])} (1 seed)" if len(found) == 1 else of_seeds(found, len(SEEDS), form)


def _rounds(result: Result, goal: float) -> float:
    found = crossing(result.accuracy, goal)
    return inf if found is None else found


def _megabytes(result: Result) -> float:
    """All nodes, both ways, up to and with the round that reaches the goal; infinite if none does."""
    reached = next((number for number, accuracy in enumerate(result.accuracy) if accuracy >= GOAL), None)
    return inf if reached is None else sum(result.bytes[:reached]) / MEGABYTE


def _form_of_traffic(megabytes: float) -> str:
    return "–" if megabytes == inf else f"{megabytes:.1f} MB"


def _form_of_rounds(most: int) -> Form:
    return lambda number: f"> {most}" if number == inf else f"{number:.1f}"
