"""Takes a trained model elsewhere: as ONNX, in floats and in 8-bit integers, both checked on MNIST's test images."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common import mnist_bundle
from common.command_line import Parser, run_command
from common.errors import DataError, RunFailed
from common.exporting import Probabilities, check_packages, describe, quantize, session, to_onnx
from common.models import weights_sha256
from common.prediction import Predictor, find_weights
from common.replacing import replacing

if TYPE_CHECKING:
    import onnx

PROG = "python scripts/export.py"
EXAMPLES = """\
  python scripts/export.py                           the best model of the newest run
  python scripts/export.py runs/NAME                 of this run
  python scripts/export.py digits.pt --out deploy    this file, with digits.json beside it, into another folder"""
DESCRIPTION = """\
Writes best.onnx and best-int8.onnx, which onnxruntime runs without torch, and shows how they compare with best.pt on
MNIST's test images (docs/export.md)."""
NUM_CALIBRATION = 500  # training images that show the ranges of activations
NUM_TIMED = 300  # test images that are told one at a time
LARGEST_DIFFERENCE = 1e-4  # of a probability, between the original and ONNX in floats: rounding stays far below

Uint8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Check:
    """How one form of the model does on the test images."""

    accuracy: float  # 0..1
    agreement: float  # 0..1, the share of images on which it says what the original says
    difference: float  # 0..1, the largest of a probability from the original's
    milliseconds: float  # for one image alone on one thread, the median


def main(given: Sequence[str] | None = None) -> int:
    """Convert, check, write, show; returns the exit code."""
    arguments = _parser().parse_args(given)
    check_packages()
    torch.set_num_threads(1)
    weights = find_weights(arguments.model)
    predictor = _load(weights)
    calibration = np.random.RandomState(0).permutation(60_000)[:NUM_CALIBRATION]
    exact = to_onnx(predictor)
    small = quantize(exact, mnist_bundle.read("train")[0][calibration])
    original, *checks = check([_in_torch(predictor), session(exact), session(small)], *mnist_bundle.read("test"))
    if checks[0].difference > LARGEST_DIFFERENCE:
        raise RunFailed(
            f"as ONNX, {weights} gives probabilities that differ by up to {checks[0].difference:.2g}, expected at most"
            f" {LARGEST_DIFFERENCE:g}; nothing is written"
        )
    out = arguments.out or weights.parent
    files = [out / f"{weights.stem}.onnx", out / f"{weights.stem}-int8.onnx"]
    for file, model, found in zip(files, (exact, small), checks, strict=True):
        describe(model, predictor, {"accuracy": found.accuracy, "round": predictor.facts.get("round", "")})
        _write(file, model)
    _show(predictor.name, [weights, *files], [original, *checks])
    return 0


def check(forms: Sequence[Probabilities], images: Uint8Array, labels: Uint8Array) -> list[Check]:
    """Every form of a model on ``images`` (uint8 [N, 28, 28]) and ``labels`` (uint8 [N]); the original comes first."""
    told = [np.concatenate([form(batch) for batch in np.array_split(images, 10)]) for form in forms]
    return [
        Check(
            accuracy=float((found.argmax(axis=1) == labels).mean()),
            agreement=float((found.argmax(axis=1) == told[0].argmax(axis=1)).mean()),
            difference=float(np.abs(found - told[0]).max()),
            milliseconds=_milliseconds(form, images[:NUM_TIMED]),
        )
        for form, found in zip(forms, told, strict=True)
    ]


def _parser() -> Parser:
    parser = Parser(PROG, EXAMPLES, DESCRIPTION)
    parser.add_argument(
        "model", nargs="?", type=Path, metavar="MODEL", help="best.pt, with best.json beside it, or a run"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: that of the weights)")
    return parser


def _load(weights: Path) -> Predictor:
    predictor = Predictor.load(weights)
    told = predictor.facts.get("sha256", "")
    if told and told != weights_sha256(predictor.model.state_dict()):
        described = weights.with_suffix(".json")
        raise DataError(f"{described} describes other weights than {weights} holds: copy both from one run")
    return predictor


def _in_torch(predictor: Predictor) -> Probabilities:
    return lambda images: predictor.probabilities(torch.from_numpy(images)).numpy()


def _milliseconds(form: Probabilities, images: Uint8Array) -> float:
    form(images[:1])  # the first time takes longer
    seconds = []
    for i in range(len(images)):
        start = time.perf_counter()
        form(images[i : i + 1])
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds)


def _write(file: Path, model: onnx.ModelProto) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as sink:
            sink.write(model.SerializeToString())
    except OSError as error:
        raise DataError(f"cannot write {file}: {error.strerror}; choose another folder with --out") from None


def _show(name: str, files: Sequence[Path], checks: Sequence[Check]) -> None:
    width = max(len(str(file)) for file in files)
    print(f"{name} on MNIST's test images; one thread, one image at a time for the milliseconds\n")
    print(f"| {'File':{width}} |     Size | Accuracy | Same answer | ms per image |")
    print(f"|{'-' * (width + 2)}|---------:|---------:|------------:|-------------:|")
    for file, found in zip(files, checks, strict=True):
        size = f"{file.stat().st_size / 1000:.0f} kB"
        print(
            f"| {file!s:{width}} | {size:>8} | {_percent(found.accuracy):>8} | {_percent(found.agreement):>11} |"
            f" {found.milliseconds:>12.3f} |"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


if __name__ == "__main__":
    run_command(main, PROG)
