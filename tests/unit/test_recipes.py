"""Rule: every tutorial's recipe is found by its name, is whole and valid, and is what the tutorial says."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from common.command_line import config_path, layers
from common.layers import CONFIGS, from_file, load
from common.settings import Settings, as_yaml

# The learning of each: what the tutorial fixes, over the defaults.
PI = {"batch_size": 50, "mean": 0.1307, "std": 0.3081, "rounds": 10}
RECIPES: dict[str, dict[str, Any]] = {
    "edge-tutorial": {
        "name": "lenet5", "resize": "bilinear", "mean": 0.5, "std": 0.5, "batch_size": 128,
        "optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.0, "rounds": 10,
    },
    "gpu-lab": {
        "name": "lenet5-sigmoid", "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.001, "momentum": 0.9,
        "schedule": "step", "schedule_gamma": 0.1, "schedule_every": 10, "rounds": 50,
    },
    "from-scratch": {"name": "lenet5-28", "batch_size": 512, "optimizer": "adam", "learning_rate": 0.001},
    "pi-workshop-mlp-sgd": PI | {"name": "mlp", "optimizer": "sgd"},
    "pi-workshop-mlp-adam": PI | {"name": "mlp", "optimizer": "adam"},
    "pi-workshop-cnn-sgd": PI | {"name": "cnn", "optimizer": "sgd"},
    "pi-workshop-cnn-adam": PI | {"name": "cnn", "optimizer": "adam"},
    "pi-workshop-1e-5": PI | {"name": "mlp", "optimizer": "sgd", "learning_rate": 1e-5},
}  # fmt: skip


def recipe(name: str) -> Settings:
    return load(*layers(argparse.Namespace(config=name, set=[]), {}))


@pytest.mark.parametrize(("name", "expected"), RECIPES.items())
def test_a_recipe_is_found_by_name_and_is_what_the_tutorial_says(name: str, expected: dict[str, Any]) -> None:
    settings = recipe(name)
    found = settings.federation.model_dump() | settings.training.model_dump() | settings.preprocessing.model_dump()
    found |= settings.model.model_dump()
    assert {key: found[key] for key in expected} == expected


def test_no_recipe_is_forgotten() -> None:
    assert {path.stem for path in (CONFIGS / "recipes").iterdir()} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_printed_is_read_back(name: str, tmp_path: Path) -> None:
    (tmp_path / "printed.yaml").write_text(as_yaml(recipe(name)))
    assert load(from_file(tmp_path / "printed.yaml")) == recipe(name)


def test_a_recipe_fixes_all_of_the_learning_that_its_optimizer_uses() -> None:
    for name in RECIPES:
        given = from_file(config_path(name))[1]
        needed = {"model.name", "preprocessing.mean", "preprocessing.std", "training.optimizer", "training.schedule"}
        needed |= {f"training.{key}" for key in ("learning_rate", "weight_decay", "batch_size", "local_epochs")}
        if given["training.optimizer"] == "sgd":
            needed.add("training.momentum")
        assert needed <= set(given)


def test_a_file_of_ones_own_goes_before_a_recipe_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_path("gpu-lab") == CONFIGS / "recipes" / "gpu-lab.yaml"
    assert config_path("./gpu-lab.yaml") == Path("gpu-lab.yaml")
    (tmp_path / "gpu-lab").write_text("run: {seed: 1}")
    assert config_path("gpu-lab") == Path("gpu-lab")
