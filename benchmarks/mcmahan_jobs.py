"""Which runs count the rounds to 99 %, and in which order."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.goal_job import HELD_OUT, GoalJob
from benchmarks.job import TEST
from benchmarks.mcmahan_choices import FOUND, KINDS, ROWS, TRIALS, Choice, Kind

GROUPS = ("rows", "found", "trials")
SEEDS = (1, 2, 3)
NODES = 100
GOALS = 0.985, 0.99  # a run ends at the second
RESULTS = Path(__file__).resolve().parent / "results" / "mcmahan.jsonl"
HOLDOUT = 0.0833  # of a node's 600 images: 50, so 5,000 in all
_DIVISIONS: dict[Kind, Sequence[str]] = {
    "iid": ("data.partition=iid",),
    "two-labels": ("data.partition=by_label", "data.labels_per_shard=2"),
}
# The paper averages all that comes. With IID data so do our defaults: they rejected one update of a row at most, and
# shortened three. With two labels a node they set half of the honest nodes aside (decision 8).
_AS_THEY_COME = ("strategy.max_norm_ratio=0", "strategy.clip_norm_ratio=0")


def job(choice: Choice, kind: Kind, seed: int, file: Path = RESULTS) -> GoalJob:
    """One run; a trial goes by the training images that its nodes hold out, all others by the test set."""
    is_trial = choice in TRIALS[kind]
    settings = (
        *_DIVISIONS[kind],
        *choice.settings,
        *(_AS_THEY_COME if choice in ROWS.values() and kind == "two-labels" else ()),
        *([f"data.holdout={HOLDOUT}"] if is_trial else []),
        f"run.seed={seed}",
        "tensorboard.images_every=0",
    )
    flags = [word for setting in settings for word in ("--set", setting)]
    rounds = choice.rounds[kind]
    return GoalJob(
        f"{choice.name}-{kind}-seed{seed}",
        choice.config,
        rounds,
        ("--simulate", str(NODES), "--rounds", str(rounds), *flags),
        goal=GOALS[1],
        measure=HELD_OUT if is_trial else TEST,
        file=file,
    )


def jobs(groups: Sequence[str]) -> list[GoalJob]:
    """All runs of ``groups``, the most telling ones first, for a campaign may be stopped at any time."""
    rows = list(ROWS.values()) if "rows" in groups else []
    found = FOUND if "found" in groups else dict.fromkeys(KINDS, ())
    tried = TRIALS if "trials" in groups else dict.fromkeys(KINDS, ())
    first, *others = SEEDS
    return [
        *(job(choice, "iid", first) for choice in (*rows, *found["iid"])),
        *(job(choice, kind, first) for kind in KINDS for choice in tried[kind]),
        *(job(choice, "two-labels", first) for choice in (*found["two-labels"], *rows)),
        *(job(choice, kind, seed) for kind in KINDS for seed in others for choice in (*found[kind], *rows)),
    ]
