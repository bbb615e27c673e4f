"""Rule: a best.pt is used just as the best.json beside it says, or a sentence says which of the two is wrong."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import DataError
from common.models import MODELS, build, initial_state
from common.prediction import Predictor
from common.preprocessing import Preprocessing

PAD = {"transform": "pad", "size": 32, "mean": 0.1307, "std": 0.3081}
AS_IS = {"transform": "none", "size": 28, "mean": 0.5, "std": 0.25}
FACTS: dict[str, Any] = {"round": 3, "accuracy": 0.9, "loss": 0.3, "model": "lenet5", "preprocessing": PAD}


def write(folder: Path, state: object, facts: object = FACTS) -> Path:
    torch.save(state, folder / "best.pt")
    (folder / "best.json").write_text(json.dumps(facts))
    return folder / "best.pt"


def noise(num_images: int) -> torch.Tensor:
    return torch.randint(0, 256, (num_images, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("name", MODELS)
def test_probabilities_are_those_of_the_model_with_its_own_preprocessing(name: str, tmp_path: Path) -> None:
    state = initial_state(name, 5)
    described = PAD if MODELS[name].input_size == 32 else AS_IS
    predictor = Predictor.load(write(tmp_path, state, FACTS | {"model": name, "preprocessing": described}))
    found = predictor.probabilities(noise(4))

    model = build(name)
    model.load_state_dict(state)
    answer = model(Preprocessing.from_description(described).prepare(noise(4)))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(4))
    for label in range(10):  # the loss of a label is the negative logarithm of its probability
        loss = model.loss(answer, torch.full((4,), label), reduction="sum")
        torch.testing.assert_close(-found[:, label].log().sum(), loss.detach())


def test_the_facts_of_the_run_come_along(tmp_path: Path) -> None:
    predictor = Predictor.load(write(tmp_path, initial_state("lenet5", 5)))
    assert (predictor.name, predictor.facts["accuracy"]) == ("lenet5", 0.9)


def test_a_copy_under_another_name_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, initial_state("lenet5", 5))
    for suffix in ("pt", "json"):
        (tmp_path / f"best.{suffix}").rename(tmp_path / f"digits.{suffix}")
    assert Predictor.load(tmp_path / "digits.pt").name == "lenet5"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ([], "J must be a JSON object, got a list"),
        (FACTS | {"model": "resnet"}, "J: model must be lenet5, lenet5-sigmoid, lenet5-28, mlp, cnn, got 'resnet'"),
        (FACTS | {"model": ["mlp"]}, "J: model must be lenet5, lenet5-sigmoid, lenet5-28, mlp, cnn, got ['mlp']"),
        (FACTS | {"model": "mlp"}, "J: mlp takes 28x28 pixels, the preprocessing makes 32x32"),
        (FACTS | {"preprocessing": {}}, "J: preprocessing: expected transform, size, mean and std, got nothing"),
        (FACTS | {"preprocessing": 3}, "J: preprocessing: expected transform, size, mean and std, got 3"),
        (FACTS | {"preprocessing": PAD | {"std": 0}}, "J: preprocessing: std must not be 0"),
    ],
)
def test_a_description_of_another_form_is_named(facts: object, message: str, tmp_path: Path) -> None:
    weights = write(tmp_path, initial_state("lenet5", 5), facts)
    with pytest.raises(DataError) as error:
        Predictor.load(weights)
    assert str(error.value).replace(str(tmp_path / "best.json"), "J") == message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    weights = tmp_path / "best.pt"
    with pytest.raises(DataError, match=re.escape(f"there is no file of weights {weights}: name the best.pt of a run")):
        Predictor.load(weights)
    torch.save({}, weights)
    with pytest.raises(DataError, match=r"best.json, which says how best.pt reads images: copy both$"):
        Predictor.load(weights)
    (tmp_path / "best.json").write_text("{")
    with pytest.raises(DataError, match=r"best.json is not valid JSON$"):
        Predictor.load(weights)


def changed(**values: object) -> dict[str, object]:
    return {**initial_state("lenet5", 5), **{name.replace("__", "."): value for name, value in values.items()}}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1], "P does not fit lenet5: it holds list; expected conv1.weight, conv1.bias, "),
        (initial_state("mlp", 5), "P does not fit lenet5: it holds fc1.weight, fc1.bias, fc2.weight, fc2.bias; expec"),
        (changed(fc3__bias=torch.zeros(9)), "P does not fit lenet5: fc3.bias is torch.float32 [9], expected torch.fl"),
        (changed(fc3__bias=torch.zeros(10).half()), "P does not fit lenet5: fc3.bias is torch.float16 [10], expected"),
        (changed(fc3__bias=3), "P does not fit lenet5: fc3.bias is int, expected torch.float32 [10]"),
        (
            changed(fc3__bias=torch.full((10,), torch.nan)),
            "P cannot be used: fc3.bias holds values that are no nu",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(state: object, message: str, tmp_path: Path) -> None:
    weights = write(tmp_path, state)
    with pytest.raises(DataError) as error:
        Predictor.load(weights)
    assert str(error.value).replace(str(weights), "P").startswith(message)


def test_bytes_that_are_no_weights_are_named(tmp_path: Path) -> None:
    weights = write(tmp_path, initial_state("lenet5", 5))
    whole = weights.read_bytes()
    for content in (b"", b"seven", whole[:1000], whole[: len(whole) // 2]):
        weights.write_bytes(content)
        with pytest.raises(DataError, match=r"best.pt is not a file of weights$"):
            Predictor.load(weights)
