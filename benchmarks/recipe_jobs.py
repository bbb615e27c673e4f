"""Which runs the recipes' tables are made of: every recipe, centralized and on ten nodes."""

from collections.abc import Sequence
from functools import cache
from typing import Literal

from benchmarks.job import Job
from common.layers import CONFIGS, from_file, load

Kind = Literal["centralized", "iid", "dirichlet"]
# Cheap and telling ones first, so that a run of a few minutes fills most of the tables.
RECIPES = (
    *("edge-tutorial", "from-scratch", "pi-workshop-mlp-sgd", "pi-workshop-mlp-adam", "pi-workshop-1e-5"),
    *("pi-workshop-cnn-sgd", "pi-workshop-cnn-adam", "gpu-lab"),
)
SEEDS: dict[Kind, Sequence[int]] = {"centralized": (1, 2, 3), "iid": (1,), "dirichlet": (1,)}
_FLAGS: dict[Kind, tuple[str, ...]] = {
    "centralized": ("--centralized",),
    "iid": ("--simulate", "10", "--set", "data.partition=iid"),
    "dirichlet": ("--simulate", "10", "--set", "data.partition=dirichlet", "--set", "data.dirichlet_alpha=0.5"),
}


def job(recipe: str, kind: Kind, seed: int) -> Job:
    """One run; it has as many rounds as the tutorial has epochs."""
    config = f"recipes/{recipe}"
    return Job(f"{recipe}-{kind}-seed{seed}", config, _rounds(config), (*_FLAGS[kind], "--seed", str(seed)))


def jobs(recipes: Sequence[str] = RECIPES) -> list[Job]:
    """All runs of ``recipes`` in the order to run them: every first seed before any second one."""
    return [
        job(recipe, kind, seed)
        for seed in sorted({seed for seeds in SEEDS.values() for seed in seeds})
        for recipe in RECIPES
        if recipe in recipes
        for kind in SEEDS
        if seed in SEEDS[kind]
    ]


@cache
def _rounds(config: str) -> int:
    return load(from_file(CONFIGS / f"{config}.yaml")).federation.rounds
