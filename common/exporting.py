"""A trained model as ONNX, preprocessing included: in 32-bit floats, or with its layers in 8-bit integers."""

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from common import __version__
from common.errors import UsageError
from common.models import weights_sha256
from common.prediction import Predictor
from common.preprocessing import SIDE

if TYPE_CHECKING:
    import onnx

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18  # of ONNX 1.13 (2022): what torch's exporter is written for
INPUT, OUTPUT = "images", "probabilities"
# Layers with weights compute in integers; the others of these hand on what they get, so nothing is converted between.
QUANTIZED = ("Conv", "Gemm", "Relu", "MaxPool", "Reshape")
_CALIBRATION_BATCH = 100

Probabilities = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def check_packages() -> None:
    """Refuse to begin without the packages of the extra ``export``, which the functions below need.

    Raises:
        UsageError: one is not installed.
    """
    for name in PACKAGES:
        if find_spec(name) is None:
            raise UsageError(
                f"exporting needs {', '.join(PACKAGES)}, and {name} is not installed here; in Fedge's folder run:"
                " python -m pip install --constraint constraints.txt --editable '.[export]'"
            )


class Whole(nn.Module):
    """A model from bytes to probabilities: its preprocessing, the network, and softmax."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.model = predictor.model
        self._prepare = predictor.preprocessing.prepare

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities, float32 [N, 10], of ``images``, uint8 [N, 28, 28]."""
        return self.model(self._prepare(images)).softmax(dim=1)  # type: ignore[no-any-return]


def to_onnx(predictor: Predictor) -> "onnx.ModelProto":
    """The model as ONNX: ``images`` uint8 [N, 28, 28] in, ``probabilities`` float32 [N, 10] out, for any N >= 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's exporter about torch's own trees
        program = torch.onnx.export(
            Whole(predictor).eval(),
            (torch.zeros(2, SIDE, SIDE, dtype=torch.uint8),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "the exporter through torch.export gives a program"
    return program.model_proto


def quantize(model: "onnx.ModelProto", images: npt.NDArray[np.uint8]) -> "onnx.ModelProto":
    """``model`` with 8-bit weights and activations (static, QDQ format) in the layers of ``QUANTIZED``.

    Weights become int8 with a scale for every output channel, activations uint8 with the range that
    they have on ``images`` (uint8 [N, 28, 28], training images: N of a few hundred will do).
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder, _without_advice():
        source, target = Path(folder) / "exact.onnx", Path(folder) / "quantized.onnx"
        onnx.save(model, source)  # given the model itself, quantize_static would empty it
        quantize_static(
            source,
            target,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            # Weights of 7 bits: sums of 8-bit products saturate on x86 without VNNI, and who knows where it will run.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(target)


def describe(model: "onnx.ModelProto", predictor: Predictor, figures: Mapping[str, Any]) -> None:
    """Write into ``model`` what it is: network, preprocessing, sha256 of the original weights, and ``figures``."""
    known: dict[str, Any] = {
        "model": predictor.name,
        "preprocessing": json.dumps(predictor.preprocessing.description()),
        "sha256": weights_sha256(predictor.model.state_dict()),
        **figures,
    }
    for key, value in known.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    model.producer_name, model.producer_version = "Fedge", __version__


def session(model: "onnx.ModelProto") -> Probabilities:
    """A function that runs ``model`` with onnxruntime, on one thread."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    running = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def probabilities(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = running.run([OUTPUT], {INPUT: images})[0]
        return found

    return probabilities


class _Calibration:
    """What onnxruntime calls a CalibrationDataReader: it has ``get_next``."""

    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self._batches = iter(np.array_split(images, -(-len(images) // _CALIBRATION_BATCH)))

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        """The next images as the model's input; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@contextmanager
def _without_advice() -> Iterator[None]:
    """Onnxruntime advises, as a warning, to optimise the graph first; torch's exporter has done that."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
