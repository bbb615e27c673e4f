"""Which runs count the rounds to 99 %: the rows of McMahan et al. (2017), and settings that do better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from benchmarks.goal_job import HELD_OUT, TEST, GoalJob

Kind = Literal["iid", "two-labels"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SEEDS = (1, 2, 3)
NODES, GOAL, LOWER_GOAL = 100, 0.99, 0.985
RESULTS = Path(__file__).resolve().parent / "results" / "mcmahan.jsonl"
HOLDOUT = 0.0833  # of a node's 600 images: 50, so 5,000 in all, to choose settings on
_DIVISIONS: dict[Kind, Sequence[str]] = {
    "iid": ("data.partition=iid",),
    "two-labels": ("data.partition=by_label", "data.labels_per_shard=2"),
}
_CAPS: dict[Kind, Mapping[int, int]] = {"iid": {1: 200, 5: 100, 20: 60}, "two-labels": {1: 700, 5: 400, 20: 450}}


@dataclass(frozen=True)
class Choice:
    """Settings on top of a profile, and after how many rounds a run with them gives up."""

    name: str
    title: str  # in its table
    settings: Sequence[str] = ()
    caps: Mapping[Kind, int] = field(default_factory=lambda: {"iid": 100, "two-labels": 400})
    config: str = "mcmahan-2017"


def row(epochs: int, batch: int) -> Choice:
    """A row of their table 2: plain SGD, nothing else."""
    settings = (
        f"training.local_epochs={epochs}",
        f"training.batch_size={batch}",
        f"training.learning_rate={RATES[epochs, batch]:g}",
    )
    return Choice(f"e{epochs}-b{batch}", "", settings, {kind: _CAPS[kind][epochs] for kind in KINDS})


# Their rounds to 99 % by (E, B): IID, two labels a node. 1,663,370 parameters, so 6.65 MB each way.
PAPER = {
    (1, 50): (65, 600),
    (1, 10): (34, 350),
    (5, 50): (29, 334),
    (5, 10): (20, 229),
    (20, 50): (32, 426),
    (20, 10): (18, 173),
}
RATES = {(1, 50): 0.1, (1, 10): 0.05, (5, 50): 0.1, (5, 10): 0.05, (20, 50): 0.1, (20, 10): 0.05}
ROWS = {key: row(*key) for key in PAPER}


def job(choice: Choice, kind: Kind, seed: int, file: Path = RESULTS) -> GoalJob:
    """One run on the test set."""
    return _job(choice.name, choice, kind, seed, choice.caps[kind], file=file)


def trial(choice: Choice, kind: Kind, rounds: int, file: Path = RESULTS) -> GoalJob:
    """One run whose goal is on what the nodes hold out, to choose settings without the test set."""
    return _job(f"trial-{choice.name}", choice, kind, 1, rounds, f"data.holdout={HOLDOUT}", measure=HELD_OUT, file=file)


def _job(
    name: str, choice: Choice, kind: Kind, seed: int, rounds: int, *more: str, measure: str = TEST, file: Path
) -> GoalJob:
    settings = (*_DIVISIONS[kind], *choice.settings, f"run.seed={seed}", "tensorboard.images_every=0", *more)
    flags = [word for setting in settings for word in ("--set", setting)]
    return GoalJob(
        f"{name}-{kind}-seed{seed}",
        choice.config,
        rounds,
        ("--simulate", str(NODES), "--rounds", str(rounds), *flags),
        goal=GOAL,
        measure=measure,
        file=file,
    )


def jobs(groups: Sequence[str]) -> list[GoalJob]:
    """All runs of the ``groups``, the most telling ones first: a campaign may be stopped at any time."""
    plain = list(ROWS.values()) if "rows" in groups else []
    return [job(choice, kind, seed) for seed in SEEDS for kind in KINDS for choice in plain]
