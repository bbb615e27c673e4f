"""The tables of rounds to 99 % in Markdown, from the kept results and nothing else."""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path

from benchmarks import results
from benchmarks.crossing import crossing
from benchmarks.figures import Form, of_seeds, percent, row
from benchmarks.mcmahan_choices import FOUND, KINDS, PAPER, ROWS, TRIALS, Choice, Kind
from benchmarks.mcmahan_jobs import GOALS, RESULTS, SEEDS, job
from benchmarks.results import Result

_TITLES: dict[Kind, str] = {"iid": "IID", "two-labels": "Two labels a node"}
MEGABYTE = 1e6


def tables(out: Path, file: Path = RESULTS) -> str:
    """Their rows, what was found and what was tried, on each division of the data, as far as ``file`` has results."""
    del out  # a run that is there and not in the file is not finished
    parts = [
        ("The rows of the paper", [(kind, _of_rows(kind, file)) for kind in KINDS]),
        ("What was found", [(kind, _of_choices(FOUND[kind], kind, SEEDS, file)) for kind in KINDS]),
        (
            "What was tried",
            [(kind, _of_choices(TRIALS[kind], kind, SEEDS[:1], file)) for kind in KINDS],
        ),
    ]
    return "\n\n".join(
        "\n\n".join([f"### {title}", *(f"{_TITLES[kind]}:\n\n{table}" for kind, table in of_kinds)])
        for title, of_kinds in parts
    )


def _of_rows(kind: Kind, file: Path) -> str:
    lines = _head("E", "B", "rate", "their CNN")
    for (epochs, batch), theirs in PAPER.items():
        choice = ROWS[epochs, batch]
        rate = choice.settings[-1].partition("=")[2]
        cells = _measured(choice, kind, SEEDS, file)
        lines.append(row(str(epochs), str(batch), rate, str(theirs[KINDS.index(kind)]), *cells))
    return "\n".join(lines)


def _of_choices(choices: Sequence[Choice], kind: Kind, seeds: Sequence[int], file: Path) -> str:
    rows = (row(choice.title, *_measured(choice, kind, seeds, file)) for choice in choices)
    return "\n".join([*_head("settings"), *rows])


def _head(*first: str) -> list[str]:
    lower, higher = (f"{100 * goal:g} %" for goal in GOALS)
    titles = (*first, f"to {lower}", f"to {higher}", f"traffic to {higher}", "best")
    return [row(*titles), "|" + "---|" * len(titles)]


def _measured(choice: Choice, kind: Kind, seeds: Sequence[int], file: Path) -> list[str]:
    """Cells: rounds to both goals, traffic to the second, best accuracy till then or till the run gave up."""
    kept = results.read(file)
    asked = [job(choice, kind, seed, file) for seed in seeds]
    found = [result for each in asked if (result := each.result(kept))]
    figures: list[tuple[Callable[[Result], float], Form]] = [
        *((partial(_rounds, goal), _form_of_rounds(choice.rounds[kind])) for goal in GOALS),
        (partial(_megabytes, GOALS[1]), _form_of_traffic),
        (lambda result: max(result.accuracy), percent),
    ]
    return [_cell([figure(result) for result in found], len(seeds), form) for figure, form in figures]


def _cell(found: Sequence[float], wanted: int, form: Form) -> str:
    return f"{form(found[0])} (1 seed)" if len(found) == 1 < wanted else of_seeds(found, wanted, form)


def _rounds(goal: float, result: Result) -> float:
    found = crossing(result.accuracy, goal)
    return inf if found is None else found


def _megabytes(goal: float, result: Result) -> float:
    """All nodes, both ways, up to and with the round that reaches the goal; infinite if none does."""
    reached = next((number for number, accuracy in enumerate(result.accuracy) if accuracy >= goal), None)
    return inf if reached is None else sum(result.bytes[:reached]) / MEGABYTE


def _form_of_traffic(megabytes: float) -> str:
    return "∞" if megabytes == inf else f"{megabytes:.1f} MB"


def _form_of_rounds(most: int) -> Form:
    return lambda number: f"> {most}" if number == inf else f"{number:.1f}"
