"""TensorBoard shows each round once, under the tags of the contract, whatever happened to the server."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.backend.event_processing.plugin_event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator as Backend,
)

from common.training import Evaluation
from server.phases import Phases
from server.report import LocalModel, NodeReport, Round
from server.storage import tensorboard
from server.storage.tensorboard import TensorBoardWriter

ROOT = Path(__file__).resolve().parents[2]


def test_every_round_has_exactly_the_tags_of_the_contract(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path)
    writer.write(0, Evaluation(2.25, 0.125))
    writer.write(1, Evaluation(0.5, 0.75), _round(1))
    writer.close()
    assert _points(tmp_path) == {
        "test/loss": [(0, 2.25), (1, 0.5)],
        "test/accuracy": [(0, 0.125), (1, 0.75)],
        "train/loss": [(1, 0.625)],
        "round/seconds": [(1, 2.5)],
        "round/overhead_seconds": [(1, 0.5)],
        "round/broadcast_seconds": [(1, 0.125)],
        "round/train_seconds": [(1, 2.0)],
        "round/train_median_seconds": [(1, 1.5)],
        "round/evaluate_seconds": [(1, 1.25)],
        "round/nodes": [(1, 1.0)],
        "round/rejected": [(1, 1.0)],
        "round/clipped": [(1, 0.0)],
        "round/late": [(1, 0.0)],
        "link/bytes_up": [(1, 202.0)],
        "link/bytes_down": [(1, 300.0)],
        "node/pi-1/train_loss": [(1, 0.625)],
        "node/pi-1/examples": [(1, 6000.0)],
        "node/pi-1/seconds": [(1, 2.25)],
        "node/pi-1/update_norm": [(1, 1.5)],
    }


def test_a_round_without_an_average_has_no_training_loss(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path)
    writer.write(1, Evaluation(0.5, 0.75), _round(1, train_loss=float("nan")))
    assert "train/loss" not in _points(tmp_path)


def test_a_round_of_nodes_that_train_alone_shows_how_all_of_them_are(tmp_path: Path) -> None:
    models = (LocalModel("pi-1", 0.5, 1.0), LocalModel("pi-2", 0.75, 0.5))
    TensorBoardWriter(tmp_path).write(1, Evaluation(0.5, 0.75), replace(_round(1), local_models=models))
    points = _points(tmp_path)
    assert [points[f"local/accuracy_{which}"] for which in ("mean", "best", "worst")] == [
        [(1, 0.625)],
        [(1, 0.75)],
        [(1, 0.5)],
    ]
    assert [points[f"node/{name}/test_accuracy"] for name in ("pi-1", "pi-2")] == [[(1, 0.5)], [(1, 0.75)]]


def test_a_round_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from common.training import Evaluation\n"
        "from server.storage.tensorboard import TensorBoardWriter\n"
        "writer = TensorBoardWriter(Path(sys.argv[1]))\n"
        "for number in range(50): writer.write(number, Evaluation(1.0, number / 64))\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, timeout=120, check=False)
    assert done.returncode == -9
    assert _points(tmp_path)["test/accuracy"] == [(number, number / 64) for number in range(50)]


def test_no_step_is_shown_twice_after_resumes(tmp_path: Path) -> None:
    first = TensorBoardWriter(tmp_path)
    for number in range(5):
        first.write(number, Evaluation(1.0, 0.25))
    second = TensorBoardWriter(tmp_path, first_step=3)  # rounds 3 and 4 were shown and not saved
    second.write(3, Evaluation(1.0, 0.5))
    third = TensorBoardWriter(tmp_path, first_step=4)
    third.write(4, Evaluation(1.0, 0.75))
    third.write(5, Evaluation(1.0, 0.75))
    expected = [(0, 0.25), (1, 0.25), (2, 0.25), (3, 0.5), (4, 0.75), (5, 0.75)]
    assert _points(tmp_path)["test/accuracy"] == expected


def test_tensorboard_itself_hides_what_the_first_resume_writes_anew(tmp_path: Path) -> None:
    first = TensorBoardWriter(tmp_path)
    for number in range(3):
        first.write(number, Evaluation(1.0, 0.25))
    TensorBoardWriter(tmp_path, first_step=2).write(2, Evaluation(1.0, 0.5))
    shown = Backend(str(tmp_path))  # unlike the accumulator for scripts it takes a first start for no restart
    shown.Reload()
    assert [event.step for event in shown.Tensors("test/accuracy")] == [0, 1, 2]


def test_a_torn_point_of_a_killed_server_hides_no_other(tmp_path: Path) -> None:
    killed = TensorBoardWriter(tmp_path)
    for number in range(3):
        killed.write(number, Evaluation(1.0, 0.25))
    (file,) = tmp_path.iterdir()
    os.truncate(file, file.stat().st_size - 5)
    resumed = TensorBoardWriter(tmp_path, first_step=2)
    resumed.write(2, Evaluation(1.0, 0.5))
    assert _points(tmp_path)["test/accuracy"] == [(0, 0.25), (1, 0.25), (2, 0.5)]


def test_a_clock_that_went_back_does_not_mix_up_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = TensorBoardWriter(tmp_path)
    first.write(0, Evaluation(1.0, 0.25))
    first.write(1, Evaluation(1.0, 0.25))
    monkeypatch.setattr(time, "time", lambda: 1000.0)  # a Pi rebooted without a network
    second = TensorBoardWriter(tmp_path, first_step=1)
    second.write(1, Evaluation(1.0, 0.5))
    assert _points(tmp_path)["test/accuracy"] == [(0, 0.25), (1, 0.5)]


def test_a_full_disk_is_one_warning_and_no_point_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    writer = TensorBoardWriter(tmp_path, warn=warnings.append)
    writer.write(0, Evaluation(1.0, 0.25))
    with monkeypatch.context() as full:
        full.setattr(tensorboard, "append", _no_space)
        writer.write(1, Evaluation(1.0, 0.5))
        writer.write(2, Evaluation(1.0, 0.5))
        writer.close()
    assert warnings == [
        f"cannot write {tmp_path}: No space left on device; the run goes on, and its figures are in metrics.jsonl"
    ]
    assert _points(tmp_path)["test/accuracy"] == [(0, 0.25)]
    writer.close()
    assert _points(tmp_path)["test/accuracy"] == [(0, 0.25), (1, 0.5), (2, 0.5)]


def test_a_disk_that_is_full_in_the_middle_of_a_point_leaves_whole_points(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from common.training import Evaluation\n"
        "from server.storage.tensorboard import TensorBoardWriter\n"
        "writer = TensorBoardWriter(Path(sys.argv[1]), warn=print)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))\n"
        "for number in range(20): writer.write(number, Evaluation(1.0, number / 64))\n"
        "writer.close()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    expected = f"cannot write {tmp_path}: File too large; the run goes on, and its figures are in metrics.jsonl\n"
    assert done.stdout == expected
    shown = _points(tmp_path)["test/accuracy"]
    assert 0 < len(shown) < 20
    assert shown == [(number, number / 64) for number in range(len(shown))]


def test_a_folder_that_cannot_be_made_is_a_warning_too(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    warnings: list[str] = []
    writer = TensorBoardWriter(tmp_path / "tensorboard", warn=warnings.append)
    writer.write(0, Evaluation(1.0, 0.25))
    assert len(warnings) == 1
    assert warnings[0].startswith(f"cannot write {tmp_path / 'tensorboard'}: File exists; the run goes on")


def test_a_run_that_never_wrote_a_round_leaves_no_file(tmp_path: Path) -> None:
    TensorBoardWriter(tmp_path / "tensorboard").close()
    assert list(tmp_path.iterdir()) == []


def _points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    shown.Reload()
    return {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


def _round(number: int, train_loss: float = 0.625) -> Round:
    nan = float("nan")
    return Round(
        number=number,
        state={},
        reports=(
            NodeReport("t1", number, "pi-1", 3, 6000, None, "accepted", "", train_loss, 2.0, 2.25, 100, 101, 1, 1.5),
            NodeReport("t2", number, "pi-2", 4, 9, None, "rejected", "odd", 7.0, 1.0, 2.5, 100, 101, 1, 99.0),
            NodeReport("t3", number, "pi-3", -1, 0, None, "expired", "link lost", nan, 0.0, 2.5, 100, 0, 0),
        ),
        averaged=True,
        train_loss=train_loss,
        share_of_data=0.1,
        seconds=2.5,
        fit_seconds=2.0,
        overhead_seconds=0.5,
        bytes_down=300,
        bytes_up=202,
        phases=Phases(broadcast=0.125, train=2.0, train_median=1.5, evaluate=1.25),
    )


def _no_space(*_: object) -> None:
    raise OSError(28, os.strerror(28))
