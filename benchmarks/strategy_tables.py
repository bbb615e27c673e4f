"""The strategies' tables in Markdown, from the ``metrics.jsonl`` of their runs and nothing else."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.figures import Form, of_seeds, percent, row
from benchmarks.job import Run
from benchmarks.strategy_jobs import KINDS, ROUNDS, STRATEGIES, Kind, job, seeds

GOAL = 0.97  # test accuracy
NEVER = ROUNDS + 1.0  # sorts after every round in which it was reached
_TITLES: dict[Kind, str] = {"iid": "IID", "dirichlet": "Dirichlet 0.1", "two-labels": "2 labels"}

Figure = tuple[str, Callable[[Run], float], Form]  # its title, the figure of a run, how it is written


def tables(out: Path) -> str:
    """Test accuracy and how soon it is good, then how the nodes fare; of the runs in ``out`` that are finished."""
    learned = [("rounds to 97 %", _rounds_to_goal, _rounds), ("accuracy after 20", _last, percent)]
    fares = [("node mean", _node_mean, percent), ("worst node", _node_worst, percent)]
    return "\n\n".join(_table(figures, out) for figures in (learned, fares))


def _table(figures: Sequence[Figure], out: Path) -> str:
    titles = [f"{_TITLES[kind]}: {title}" for kind in KINDS for title, _, _ in figures]
    lines = [row("Strategy", *titles), "|" + "---|" * (1 + len(titles))]
    for strategy in STRATEGIES:
        cells = [_cell(strategy, kind, figure, out) for kind in KINDS for figure in figures]
        lines.append(row(f"`{strategy}`", *cells))
    return "\n".join(lines)


def _cell(strategy: str, kind: Kind, figure: Figure, out: Path) -> str:
    _, of_run, form = figure
    wanted = [job(strategy, kind, seed) for seed in seeds(strategy)]
    return of_seeds([of_run(each.rows(out)) for each in wanted if each.finished(out)], len(wanted), form)


def _rounds_to_goal(run: Run) -> float:
    return next((float(row["round"]) for row in run if row["test_accuracy"] >= GOAL), NEVER)


def _last(run: Run) -> float:
    return float(run[-1]["test_accuracy"])


def _node_mean(run: Run) -> float:
    return float(run[-1]["node_accuracy_mean"])


def _node_worst(run: Run) -> float:
    return float(run[-1]["node_accuracy_worst"])


def _rounds(number: float) -> str:
    return f"> {ROUNDS}" if number > ROUNDS else f"{number:g}"
