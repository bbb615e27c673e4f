"""The recipes' tables in Markdown, from the ``metrics.jsonl`` of their runs and nothing else."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.recipe_jobs import RECIPES, SEEDS, Job, Kind
from common.errors import DataError
from common.replacing import replacing

BEGIN, END = "<!-- measured: begin (make recipes) -->", "<!-- measured: end -->"
NOT_RUN = "not run yet"
# What a tutorial's own log says: test accuracy (0..1) after the first and the last epoch, last test loss.
THEIRS = {"edge-tutorial": (0.8428, 0.9829, 0.0496)}
_ACCURACY = """\
| Recipe | Rounds | Tutorial: first, last | Centralized: first | Centralized: last | Centralized: best \
| 10 nodes, IID: last (best) | 10 nodes, Dirichlet 0.5: last (best) |
|---|---|---|---|---|---|---|---|"""
_LOSS = """\
| Recipe | Tutorial: loss | Centralized: loss | IID: loss | Dirichlet 0.5: loss | Centralized: time | IID: time \
| Dirichlet 0.5: time |
|---|---|---|---|---|---|---|---|"""

Run = list[dict[str, Any]]  # the rows of a finished run's metrics.jsonl, from round 0
Figure = Callable[[Run], float]


def tables(out: Path) -> str:
    """Both tables, of the runs in ``out`` that are finished."""
    accuracy = [_row(f"`{recipe}`", *_accuracies(recipe, out)) for recipe in RECIPES]
    loss = [_row(f"`{recipe}`", *_losses_and_times(recipe, out)) for recipe in RECIPES]
    return "\n".join([_ACCURACY, *accuracy, "", _LOSS, *loss])


def write_tables(document: Path, out: Path) -> None:
    """Put the tables between the two marks of ``document``.

    Raises:
        DataError: the document cannot be read or written, or its marks are missing.
    """
    try:
        text = document.read_text(encoding="utf-8")
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise DataError(f"{document} must hold {BEGIN} and then {END}, the place of the tables: restore them")
        with replacing(document) as sink:
            sink.write(f"{before}{BEGIN}\n\n{tables(out)}\n\n{END}{after}".encode())
    except OSError as error:
        raise DataError(f"cannot rewrite {document}: {error.strerror}") from None


def _accuracies(recipe: str, out: Path) -> list[str]:
    theirs = THEIRS.get(recipe)
    return [
        str(Job(recipe, "centralized", 1).rounds),
        f"{_percent(theirs[0])}, {_percent(theirs[1])}" if theirs else "not given",
        *(_of_seeds(recipe, out, figure, _percent) for figure in (_first, _last, _best)),
        *(_last_and_best(_runs(recipe, kind, out)) for kind in ("iid", "dirichlet")),
    ]


def _losses_and_times(recipe: str, out: Path) -> list[str]:
    theirs = THEIRS.get(recipe)
    kinds: tuple[Kind, ...] = ("iid", "dirichlet")
    return [
        _four_places(theirs[2]) if theirs else "not given",
        _of_seeds(recipe, out, _loss, _four_places),
        *(_of_one(_runs(recipe, kind, out), _loss, _four_places) for kind in kinds),
        _of_one(_runs(recipe, "centralized", out), _seconds, _minutes),
        *(_of_one(_runs(recipe, kind, out), _seconds, _minutes) for kind in kinds),
    ]


def _runs(recipe: str, kind: Kind, out: Path) -> list[Run]:
    jobs = [Job(recipe, kind, seed) for seed in SEEDS[kind]]
    return [job.rows(out) for job in jobs if job.finished(out)]


def _of_seeds(recipe: str, out: Path, figure: Figure, form: Callable[[float], str]) -> str:
    """Median, smallest and largest; and of how many seeds, while some are missing."""
    runs, wanted = _runs(recipe, "centralized", out), len(SEEDS["centralized"])
    if not runs:
        return NOT_RUN
    found = [figure(run) for run in runs]
    least = re.sub(r"[^\d.]", "", form(min(found)))
    missing = f", {len(runs)} of {wanted} seeds" if len(runs) < wanted else ""
    return f"{form(median(found))} ({least}–{form(max(found))}{missing})"


def _of_one(runs: Sequence[Run], figure: Figure, form: Callable[[float], str]) -> str:
    return form(median(figure(run) for run in runs)) if runs else NOT_RUN


def _last_and_best(runs: Sequence[Run]) -> str:
    return f"{_percent(_last(runs[0]))} ({_percent(_best(runs[0]))})" if runs else NOT_RUN


def _first(run: Run) -> float:
    return float(run[1]["test_accuracy"])


def _last(run: Run) -> float:
    return float(run[-1]["test_accuracy"])


def _best(run: Run) -> float:
    return max(float(row["test_accuracy"]) for row in run)


def _loss(run: Run) -> float:
    return float(run[-1]["test_loss"])


def _seconds(run: Run) -> float:
    return sum(float(row["seconds"]) for row in run[1:])


def _percent(share: float) -> str:
    return f"{share:.2%}".replace("%", " %")


def _four_places(loss: float) -> str:
    return f"{loss:.4f}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
