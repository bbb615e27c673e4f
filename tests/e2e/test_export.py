"""Rule: scripts/export.py writes two ONNX files that onnxruntime runs alone, or says why not and writes none."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.models import initial_state, weights_sha256

ROOT = Path(__file__).resolve().parents[2]
# Everything that a machine which only runs the exported model does without.
ALONE = """
import sys
for absent in ("torch", "onnx", "common"):
    sys.modules[absent] = None
import numpy, onnxruntime
model = onnxruntime.InferenceSession(sys.argv[1])
[probabilities] = model.run(None, {"images": numpy.zeros((2, 28, 28), numpy.uint8)})
print(probabilities.shape, probabilities.argmax(axis=1), probabilities.max().round(3))
print(model.get_modelmeta().custom_metadata_map["accuracy"])
"""


def script(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return python(folder, ROOT / "scripts" / "export.py", *arguments)


def python(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in ``tmp_path/runs`` whose model says 7 with e**2 / (e**2 + 9) = 45.1 % whatever it sees."""
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    state = {name: torch.zeros_like(value) for name, value in initial_state("mlp", 0).items()}
    state["fc2.bias"][7] = 2.0
    torch.save(state, run / "best.pt")
    preprocessing = {"transform": "none", "size": 28, "mean": 0.1307, "std": 0.3081}
    facts = {"round": 1, "sha256": weights_sha256(state), "model": "mlp", "preprocessing": preprocessing}
    (run / "best.json").write_text(json.dumps(facts))
    return run


def test_the_newest_model_is_written_checked_and_runs_alone(run: Path, tmp_path: Path) -> None:
    done = script(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    title, _, _, _, *rows = done.stdout.splitlines()
    assert title.startswith("mlp on MNIST's test images")
    names = ["best.pt", "best.onnx", "best-int8.onnx"]
    for row, name in zip(rows, names, strict=True):  # 1,028 of the 10,000 test images are a 7
        assert re.fullmatch(rf"\| runs/one/{name} +\| +\d+ kB \| +10\.28 % \| +100\.00 % \| +\d+\.\d+ \|", row), row
    assert sorted(path.name for path in run.iterdir()) == sorted([*names, "best.json"])
    for name in names[1:]:
        alone = python(tmp_path, "-c", ALONE, run / name)
        assert (alone.returncode, alone.stderr) == (0, "")
        assert alone.stdout == "(2, 10) [7 7] 0.451\n0.1028\n"


def test_weights_of_another_run_are_refused(run: Path, tmp_path: Path) -> None:
    torch.save(initial_state("mlp", 1), run / "best.pt")
    done = script(tmp_path, "runs/one")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "python scripts/export.py: runs/one/best.json describes other weights than runs/one/best.pt holds: copy both"
        " from one run\n"
    )
    assert list(run.glob("*.onnx")) == []
