"""The recipes' tables in Markdown, from the ``metrics.jsonl`` of their runs and nothing else."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.figures import NOT_RUN, Form, four_places, minutes, of_seeds, percent, row
from benchmarks.job import Run
from benchmarks.recipe_jobs import RECIPES, SEEDS, Kind, job

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

Figure = Callable[[Run], float]


def tables(out: Path) -> str:
    """Both tables, of the runs in ``out`` that are finished."""
    accuracy = [row(f"`{recipe}`", *_accuracies(recipe, out)) for recipe in RECIPES]
    loss = [row(f"`{recipe}`", *_losses_and_times(recipe, out)) for recipe in RECIPES]
    return "\n".join([_ACCURACY, *accuracy, "", _LOSS, *loss])


def _accuracies(recipe: str, out: Path) -> list[str]:
    theirs, central = THEIRS.get(recipe), _runs(recipe, "centralized", out)
    return [
        str(job(recipe, "centralized", 1).rounds),
        f"{percent(theirs[0])}, {percent(theirs[1])}" if theirs else "not given",
        *(_of_central(central, figure, percent) for figure in (_first, _last, _best)),
        *(_last_and_best(_runs(recipe, kind, out)) for kind in ("iid", "dirichlet")),
    ]


def _losses_and_times(recipe: str, out: Path) -> list[str]:
    theirs, central = THEIRS.get(recipe), _runs(recipe, "centralized", out)
    federated = [_runs(recipe, "iid", out), _runs(recipe, "dirichlet", out)]
    return [
        four_places(theirs[2]) if theirs else "not given",
        _of_central(central, _loss, four_places),
        *(of_seeds([_loss(run) for run in runs], 1, four_places) for runs in federated),
        *(of_seeds([_seconds(run) for run in runs[:1]], 1, minutes) for runs in (central, *federated)),
    ]


def _runs(recipe: str, kind: Kind, out: Path) -> list[Run]:
    found = [job(recipe, kind, seed) for seed in SEEDS[kind]]
    return [each.rows(out) for each in found if each.finished(out)]


def _of_central(runs: Sequence[Run], figure: Figure, form: Form) -> str:
    return of_seeds([figure(run) for run in runs], len(SEEDS["centralized"]), form)


def _last_and_best(runs: Sequence[Run]) -> str:
    return f"{percent(_last(runs[0]))} ({percent(_best(runs[0]))})" if runs else NOT_RUN


def _first(run: Run) -> float:
    return float(run[1]["test_accuracy"])


def _last(run: Run) -> float:
    return float(run[-1]["test_accuracy"])


def _best(run: Run) -> float:
    return max(float(each["test_accuracy"]) for each in run)


def _loss(run: Run) -> float:
    return float(run[-1]["test_loss"])


def _seconds(run: Run) -> float:
    return sum(float(each["seconds"]) for each in run[1:])
