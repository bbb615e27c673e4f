"""Which runs the strategies' tables are made of: every strategy on three divisions of the data."""

from collections.abc import Sequence
from typing import Literal, get_args

from benchmarks.job import Job
from common.settings import StrategySettings

Kind = Literal["iid", "dirichlet", "two-labels"]
STRATEGIES: tuple[str, ...] = get_args(StrategySettings.model_fields["name"].annotation)
KINDS: tuple[Kind, ...] = get_args(Kind)
THREE_SEEDS = ("fedavg", "fedprox", "fedadam", "fedavgm")
ROUNDS, NODES, FRACTION, HOLDOUT = 20, 100, 0.1, 0.1
_DIVISIONS: dict[Kind, Sequence[str]] = {
    "iid": ("data.partition=iid",),
    "dirichlet": ("data.partition=dirichlet", "data.dirichlet_alpha=0.1"),
    "two-labels": ("data.partition=by_label", "data.labels_per_shard=2"),
}


def seeds(strategy: str) -> Sequence[int]:
    """The seeds that a strategy is run with."""
    return (1, 2, 3) if strategy in THREE_SEEDS else (1,)


def job(strategy: str, kind: Kind, seed: int) -> Job:
    """One run: 100 nodes, of which 10 train in a round, each on 90 % of its shard."""
    settings = (*_DIVISIONS[kind], f"federation.fraction={FRACTION:g}", f"data.holdout={HOLDOUT:g}")
    flags = [word for setting in settings for word in ("--set", setting)]
    run = ("--simulate", str(NODES), "--rounds", str(ROUNDS), "--seed", str(seed))
    return Job(f"{strategy}-{kind}-seed{seed}", f"strategies/{strategy}", ROUNDS, (*run, *flags))


def jobs(strategies: Sequence[str] = STRATEGIES) -> list[Job]:
    """All runs of ``strategies``, every first seed before any second one."""
    return [
        job(strategy, kind, seed)
        for seed in (1, 2, 3)
        for strategy in STRATEGIES
        if strategy in strategies and seed in seeds(strategy)
        for kind in KINDS
    ]
