"""Which digit is it? Uses a trained model on photos, folders of images, or MNIST's test images.

Runs with torch, NumPy and Pillow alone: a machine that only uses a model needs no more of Fedge than
this script, common/ and, for --test, data/mnist.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common import mnist_bundle
from common.command_line import Parser, run_command
from common.errors import DataError
from common.photographs import read_digit
from common.prediction import Predictor, find_weights

PROG = "python scripts/predict.py"
EXAMPLES = """\
  python scripts/predict.py photo.jpg                     one digit per image; dark on light or light on dark
  python scripts/predict.py digits/                       all images in a folder; in digits/7/ they should be 7
  python scripts/predict.py --test 20                     20 of MNIST's test images
  python scripts/predict.py photo.jpg --weights runs/NAME/best.pt"""
DESCRIPTION = "Which digit is it? Uses the model of the newest run, or the one that --weights names."
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm"}
NOT_KNOWN = -1


@dataclass(frozen=True)
class Sample:
    """One image to tell."""

    name: str
    image: torch.Tensor  # uint8 [28, 28]
    actual: int  # 0..9, or NOT_KNOWN


def main() -> int:
    """Read everything, predict, print; returns the exit code."""
    arguments = _parser().parse_args()
    if bool(arguments.images) == (arguments.test is not None):
        raise DataError("name images or folders, or ask for --test N: one of the two")
    torch.set_num_threads(1)  # more cost time on one image
    weights = find_weights(arguments.weights)
    predictor = Predictor.load(weights)
    samples = _of_mnist(arguments.test, arguments.seed) if arguments.test else list(_of_files(arguments.images))
    _show(predictor, weights, samples)
    return 0


def _parser() -> Parser:
    parser = Parser(PROG, EXAMPLES, DESCRIPTION)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--test", type=_count, metavar="N", help="N of MNIST's test images instead, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which of the test images (default 0)")
    parser.add_argument("--weights", type=Path, metavar="PATH", help="best.pt, with best.json beside it, or a run")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 10_000:
        raise argparse.ArgumentTypeError(f"MNIST has 1 to 10000 test images, got {text[:40]!r}")
    return int(text)


def _of_mnist(count: int, seed: int) -> list[Sample]:
    images, labels = mnist_bundle.read("test")
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    return [Sample(f"MNIST test {i}", torch.from_numpy(images[i]), int(labels[i])) for i in chosen]


def _of_files(given: list[Path]) -> Iterator[Sample]:
    for path in (file for name in given for file in _files(name)):
        folder = path.parent.name
        actual = int(folder) if folder in map(str, range(10)) else NOT_KNOWN
        yield Sample(str(path), torch.from_numpy(read_digit(path).copy()), actual)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [file for file in path.rglob("*") if file.suffix.lower() in IMAGES and not file.name.startswith(".")]
    if not found:
        raise DataError(f"{path} holds no images")
    return sorted(found)


def _show(predictor: Predictor, weights: Path, samples: list[Sample]) -> None:
    accuracy = predictor.facts.get("accuracy")
    of_test = f", {accuracy:.2%} right on MNIST's test images" if isinstance(accuracy, float) else ""
    print(f"{weights}: {predictor.name}{of_test}\n")
    width = max(len("image"), *(len(sample.name) for sample in samples))
    print(f"{'image':{width}}  predicted  actual  confidence")
    predictor.probabilities(samples[0].image.unsqueeze(0))  # the first time takes longer: not a figure for the rest
    seconds, right, known = 0.0, 0, 0
    for sample in samples:
        start = time.perf_counter()
        probabilities = predictor.probabilities(sample.image.unsqueeze(0))[0]
        seconds += time.perf_counter() - start
        predicted = int(probabilities.argmax())
        actual = "-" if sample.actual == NOT_KNOWN else str(sample.actual)
        known += sample.actual != NOT_KNOWN
        right += sample.actual == predicted
        wrong = "  wrong" if sample.actual not in (NOT_KNOWN, predicted) else ""
        print(f"{sample.name:{width}}  {predicted:>9}  {actual:>6}  {probabilities[predicted].item():>10.1%}{wrong}")
    share = f"{right} of {known} right ({right / known:.1%}), " if known else ""
    print(f"\n{share}{seconds / len(samples) * 1000:.2f} ms per image")


if __name__ == "__main__":
    run_command(main, PROG)
