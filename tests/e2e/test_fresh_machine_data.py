"""Rule: on a fresh machine any number of processes may ask for MNIST at once, die or find the disk full."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from common import mnist

ROOT = Path(__file__).resolve().parents[2]
ASK = """
import hashlib
from common import mnist
from common.errors import FedgeError
try:
    data = mnist.load("test")
except FedgeError as error:
    raise SystemExit(str(error))
print(hashlib.sha256(data.images.numpy().tobytes() + bytes(data.labels.tolist())).hexdigest())
"""
# Writing past 2 MB of a file fails, as on a full disk, though for another reason ("File too large").
ON_A_FULL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"


def start(state: Path, code: str = ASK) -> subprocess.Popen[str]:
    environment = os.environ | {"FEDGE_STATE_DIR": str(state), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def expected(state: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FEDGE_STATE_DIR", str(state))
    data = mnist.load_part("test", np.arange(10_000))
    return hashlib.sha256(data.images.numpy().tobytes() + bytes(data.labels.tolist())).hexdigest()


def unfinished(state: Path) -> list[Path]:
    return list(state.rglob("*.part"))


def test_four_processes_at_once_all_get_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [start(tmp_path) for _ in range(4)]

    outputs = [process.communicate(timeout=180) for process in processes]

    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert {stdout.strip() for stdout, _ in outputs} == {expected(tmp_path, monkeypatch)}
    assert unfinished(tmp_path) == []


def test_a_process_killed_while_it_unpacks_is_in_nobodys_way(tmp_path: Path) -> None:
    processes = [start(tmp_path), start(tmp_path)]
    working: list[subprocess.Popen[str]] = []
    limit = time.monotonic() + 120
    while not working and time.monotonic() < limit:
        names = " ".join(path.name for path in unfinished(tmp_path))
        working = [process for process in processes if f".{process.pid}.part" in names]
    (first,) = working
    (second,) = {*processes} - {first}

    first.send_signal(signal.SIGKILL)

    first.communicate(timeout=60)
    stdout, stderr = second.communicate(timeout=180)
    assert (first.returncode, second.returncode) == (-signal.SIGKILL, 0), stderr
    assert len(stdout.strip()) == 64
    assert unfinished(tmp_path) == []


def test_a_full_disk_is_a_sentence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = start(tmp_path, ON_A_FULL_DISK + ASK)

    _, stderr = process.communicate(timeout=180)

    assert process.returncode == 1
    assert stderr == (
        f"cannot keep MNIST in {tmp_path}/cache/mnist: File too large; it takes 110 MB: make room there,"
        " or name another state folder with FEDGE_STATE_DIR\n"
    )
    assert [path for path in tmp_path.rglob("*images*") if path.is_file()] == []
