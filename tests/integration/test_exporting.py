"""Rule: as ONNX every network tells what it tells in torch, from the bytes of an image on, and says what it is."""

import json
import sys
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from common.errors import UsageError
from common.exporting import check_packages, describe, quantize, session, to_onnx
from common.models import MODELS, build, initial_state, weights_sha256
from common.prediction import Predictor
from common.preprocessing import Preprocessing

PREPROCESSING = {
    "lenet5": Preprocessing("pad", 32, 0.1307, 0.3081),
    "lenet5-sigmoid": Preprocessing("none", 28, 0.0, 1.0),
    "lenet5-28": Preprocessing("none", 28, 0.0, 1.0),
    "mlp": Preprocessing("none", 28, 0.1307, 0.3081),
    "cnn": Preprocessing("none", 28, 0.1307, 0.3081),
}
# Numbers of 8 bits a network holds: its weights without biases, which stay wider.
WEIGHTS = {
    "lenet5": 61_706 - (6 + 16 + 120 + 84 + 10),
    "lenet5-sigmoid": 61_706 - (6 + 16 + 120 + 84 + 10),
    "lenet5-28": 44_426 - (6 + 16 + 120 + 84 + 10),
    "mlp": 79_510 - (100 + 10),
    "cnn": 922_870 - (16 + 100 + 10),
}


def predictor(name: str, preprocessing: Preprocessing | None = None) -> Predictor:
    model = build(name)
    model.load_state_dict(initial_state(name, 5))
    return Predictor(name, model.eval(), preprocessing or PREPROCESSING[name], {})


@cache
def exported(name: str) -> onnx.ModelProto:
    return to_onnx(predictor(name))


@cache
def quantized(name: str) -> onnx.ModelProto:
    return quantize(exported(name), noise(200))


def noise(num_images: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.RandomState(seed).randint(0, 256, (num_images, 28, 28)).astype(np.uint8)


def in_torch(model: Predictor, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = model.probabilities(torch.from_numpy(images)).numpy()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_images_is_told_as_in_torch(name: str) -> None:
    run = session(exported(name))
    for num_images in (1, 7):
        images = noise(num_images, seed=num_images)
        np.testing.assert_allclose(run(images), in_torch(predictor(name), images), rtol=0, atol=1e-5)


def test_digits_are_resized_inside_the_graph() -> None:
    model = predictor("lenet5", Preprocessing("bilinear", 32, 0.5, 0.5))
    np.testing.assert_allclose(session(to_onnx(model))(noise(5)), in_torch(model, noise(5)), rtol=0, atol=1e-5)


def test_the_graph_takes_bytes_and_is_valid_onnx_of_the_stated_opset() -> None:
    model = exported("mlp")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    [taken], [given] = model.graph.input, model.graph.output
    assert (taken.name, given.name) == ("images", "probabilities")
    kinds = taken.type.tensor_type.elem_type, given.type.tensor_type.elem_type
    assert kinds == (onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT)
    assert [size.dim_value or size.dim_param for size in taken.type.tensor_type.shape.dim] == ["N", 28, 28]
    assert [size.dim_value or size.dim_param for size in given.type.tensor_type.shape.dim] == ["N", 10]


@pytest.mark.parametrize("name", MODELS)
def test_all_weights_of_convolutions_and_linear_layers_become_8_bits(name: str) -> None:
    model = quantized(name)
    onnx.checker.check_model(model, full_check=True)
    stored = [value for value in model.graph.initializer if value.data_type == onnx.TensorProto.INT8 and value.dims]
    weights = [value for value in stored if len(value.dims) > 1]
    assert sum(int(np.prod(value.dims)) for value in weights) == WEIGHTS[name]
    assert model.ByteSize() < 0.4 * exported(name).ByteSize()


@pytest.mark.parametrize("name", MODELS)
def test_8_bits_tell_nearly_the_same(name: str) -> None:
    images = noise(50, seed=3)
    run = session(quantized(name))
    np.testing.assert_allclose(run(images), in_torch(predictor(name), images), rtol=0, atol=0.05)
    np.testing.assert_allclose(run(images[:1]), run(images)[:1], rtol=0, atol=1e-6)


def test_the_file_says_what_it_is() -> None:
    told = predictor("mlp")
    model = onnx.ModelProto()
    model.CopyFrom(exported("mlp"))
    describe(model, told, {"accuracy": 0.5, "round": 3})
    known = {entry.key: entry.value for entry in model.metadata_props}
    assert known.pop("sha256") == weights_sha256(initial_state("mlp", 5))
    assert json.loads(known.pop("preprocessing")) == {"transform": "none", "size": 28, "mean": 0.1307, "std": 0.3081}
    assert known == {"model": "mlp", "accuracy": "0.5", "round": "3"}
    assert model.producer_name == "Fedge"


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_way_to_get_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_packages()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError) as error:
        check_packages()
    assert str(error.value) == (
        f"exporting needs onnx, onnxscript, onnxruntime, and {package} is not installed here; in Fedge's folder run:"
        " python -m pip install --constraint constraints.txt --editable '.[export]'"
    )
