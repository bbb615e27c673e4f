"""Which runs the recipes' tables are made of: what each is called, how it is started, and whether it is finished."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from common.errors import RunDirectoryError
from common.settings import CONFIGS, Settings, from_file, load
from server.storage.durable import read_json_lines

Kind = Literal["centralized", "iid", "dirichlet"]
# Cheap and telling ones first, so that a run of a few minutes fills most of the tables.
RECIPES = (
    *("edge-tutorial", "from-scratch", "pi-workshop-mlp-sgd", "pi-workshop-mlp-adam", "pi-workshop-1e-5"),
    *("pi-workshop-cnn-sgd", "pi-workshop-cnn-adam", "gpu-lab"),
)
SEEDS: dict[Kind, Sequence[int]] = {"centralized": (1, 2, 3), "iid": (1,), "dirichlet": (1,)}
_FLAGS: dict[Kind, Sequence[str]] = {
    "centralized": ("--centralized",),
    "iid": ("--simulate", "10", "--set", "data.partition=iid"),
    "dirichlet": ("--simulate", "10", "--set", "data.partition=dirichlet", "--set", "data.dirichlet_alpha=0.5"),
}


@dataclass(frozen=True)
class Job:
    """One run of one recipe; its run directory is ``out/name``."""

    recipe: str
    kind: Kind
    seed: int

    @property
    def name(self) -> str:
        """The name of the run."""
        return f"{self.recipe}-{self.kind}-seed{self.seed}"

    @property
    def rounds(self) -> int:
        """The rounds that the recipe asks for: as many as its tutorial has epochs."""
        return _settings(self.recipe).federation.rounds

    def rows(self, out: Path) -> list[dict[str, Any]]:
        """What ``metrics.jsonl`` holds of the recipe's rounds, from round 0; none if nothing ran yet."""
        return read_json_lines(out / self.name / "metrics.jsonl")[: self.rounds + 1]

    def finished(self, out: Path) -> bool:
        """Whether all rounds of the recipe are there."""
        return len(self.rows(out)) == self.rounds + 1

    def command(self, out: Path) -> list[str]:
        """How to start the run, or to go on with it."""
        folder = out / self.name
        if folder.exists():
            return [sys.executable, "-m", "server", "--resume", str(folder), "--quiet"]
        return [
            *(sys.executable, "-m", "server", "--config", self.recipe, *_FLAGS[self.kind], "--seed", str(self.seed)),
            *("--out", str(out), "--name", self.name, "--quiet"),
        ]

    def check(self, out: Path) -> None:
        """Refuse what is there if the recipe has changed since; clear away what was killed before its first save.

        Raises:
            RunDirectoryError: the run was made with other settings.
            SettingsError: its settings cannot be read.
        """
        folder = out / self.name
        if folder.is_dir() and not (folder / "last.pt").exists():
            shutil.rmtree(folder)
        if not folder.exists():
            return
        made_with = from_file(folder / "settings.yaml")[1]
        for key, wanted in from_file(_file(self.recipe))[1].items():
            if made_with.get(key) != wanted:
                raise RunDirectoryError(
                    f"{folder} was made with {key} {made_with.get(key)!r}, the recipe says {wanted!r} now: move it away"
                )


def jobs(recipes: Sequence[str] = RECIPES) -> list[Job]:
    """All runs of ``recipes`` in the order to run them: every first seed before any second one."""
    found = [
        Job(recipe, kind, seed) for recipe in RECIPES if recipe in recipes for kind in SEEDS for seed in SEEDS[kind]
    ]
    return sorted(found, key=lambda job: job.seed)  # stable: recipes stay in their order


@cache
def _settings(recipe: str) -> Settings:
    return load(from_file(_file(recipe)))


def _file(recipe: str) -> Path:
    return CONFIGS / "recipes" / f"{recipe}.yaml"
