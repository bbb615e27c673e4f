"""Rule: scripts/predict.py tells digits with torch, NumPy and Pillow alone, or ends with a sentence and code 2."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from common.models import initial_state

ROOT = Path(__file__).resolve().parents[2]
# What a machine that only uses a model does not have.
ABSENT = ["flwr", "grpc", "google.protobuf", "torchvision", "pydantic", "yaml", "tensorboard", "rich", "psutil"]
ABSENT += ["platformdirs", "filelock", "zeroconf"]
WITHOUT = f"""
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == absent or name.startswith(absent + ".") for absent in {ABSENT}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
script = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path[0] = ""
runpy.run_path(script, run_name="__main__")
"""


def predict(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The script, started in ``folder`` by a Python that has none of the packages."""
    command = [sys.executable, "-c", WITHOUT, ROOT / "scripts" / "predict.py", *arguments]
    return subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model says 7 with 50 % whatever it sees, and a few images."""
    folder = tmp_path_factory.mktemp("deployed")
    run = folder / "runs" / "one"
    run.mkdir(parents=True)
    state = {name: torch.zeros_like(value) for name, value in initial_state("mlp", 0).items()}
    state["fc2.bias"][7] = torch.tensor(9.0).log()  # 9 to 1 against each of nine others
    torch.save(state, run / "best.pt")
    preprocessing = {"transform": "none", "size": 28, "mean": 0.1307, "std": 0.3081}
    facts = {"round": 1, "accuracy": 0.1028, "loss": 2.0, "model": "mlp", "preprocessing": preprocessing}
    (run / "best.json").write_text(json.dumps(facts))
    for name in ("photo.png", "digits/7/a.png", "digits/7/b.jpg", "digits/3/c.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = Image.new("L", (60, 80), 220)
        drawn.paste(30, (25, 10, 33, 60))
        drawn.save(path)
    (folder / "digits" / "read-me.txt").write_text("not an image, not asked for")
    (folder / "text.png").write_text("seven")
    return folder


def test_photos_and_folders_are_told_with_the_newest_model(folder: Path) -> None:
    done = predict(folder, "photo.png", "digits")
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert lines == [
        "runs/one/best.pt: mlp, 10.28% right on MNIST's test images",
        "",
        "image           predicted  actual  confidence",
        "photo.png               7       -       50.0%",
        "digits/3/c.png          7       3       50.0%  wrong",
        "digits/7/a.png          7       7       50.0%",
        "digits/7/b.jpg          7       7       50.0%",
        "",
    ]
    assert re.fullmatch(r"2 of 3 right \(66\.7%\), \d+\.\d\d ms per image", last)


def test_test_images_of_mnist_are_drawn_and_counted(folder: Path) -> None:
    done = predict(folder, "--test", "20", "--weights", "runs/one")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("MNIST test")]
    assert len({row[2] for row in rows}) == 20
    assert {row[3] for row in rows} == {"7"}
    right = sum(row[4] == "7" for row in rows)
    assert done.stdout.splitlines()[-1].startswith(f"{right} of 20 right ({right / 20:.1%}), ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["text.png"], "text.png is no image that can be read"),
        (
            ["photo.png", "--weights", "text.png"],
            "there is no text.json, which says how text.png reads images: copy",
        ),
        (["--test", "0"], "argument --test: MNIST has 1 to 10000 test images, got '0' (try --help)"),
        (["photo.png", "--test", "3"], "name images or folders, or ask for --test N: one of the two"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(folder: Path, arguments: list[str], sentence: str) -> None:
    done = predict(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"python scripts/predict.py: {sentence}")
    assert done.stderr.count("\n") == 1


def test_without_a_model_there_is_a_sentence(tmp_path: Path) -> None:
    done = predict(tmp_path, "--test", "1")
    assert done.returncode == 2
    assert done.stderr == (
        "python scripts/predict.py: there is no trained model in runs: train one (python -m server), or name its"
        " best.pt\n"
    )
