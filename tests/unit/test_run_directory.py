"""A round is saved whole or not at all, whatever happens: what a run directory holds after any bad day can go on."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from common.errors import RunDirectoryError, RunFailed, SettingsError
from common.layers import load
from common.models import weights_sha256
from common.settings import Settings
from common.training import Evaluation
from server.phases import Phases
from server.report import NodeReport, Round
from server.storage import run_directory
from server.storage.checkpoint import Kept
from server.storage.durable import append, cut, read_json_lines, to_json_lines
from server.storage.folders import make, newest_unfinished
from server.storage.run_directory import RunDirectory
from server.storage.settings import check_same, read_settings, settings_layer, write_settings

ROOT = Path(__file__).resolve().parents[2]
PAD = {"transform": "pad", "size": 32, "mean": 0.1307, "std": 0.3081}
NOON = datetime.fromisoformat("2026-02-03T12:00:00+00:00")
SETTINGS = load()


def test_a_run_directory_holds_the_files_of_the_contract(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        assert run.commit(_round(1), Evaluation(0.5, 0.8))
        run.tensorboard.mkdir()
        logging.getLogger("somebody").info("said something")
    names = {path.name for path in (tmp_path / "a").iterdir() if path.name != ".lock"}
    logs = {"settings.yaml", "metrics.jsonl", "ledger.jsonl", "run.log", "tensorboard"}
    assert names == logs | {"best.pt", "best.json", "last.pt", "last.prev.pt"}


def test_metrics_have_exactly_the_keys_of_the_contract(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        run.commit(_round(1), Evaluation(0.5, 0.8, {0: 0.75, 9: 1.0}))
        assert run.metrics == [
            {"round": 0, "test_loss": 2.3, "test_accuracy": 0.1, "class_accuracy": [None] * 10, "best": True},
            {
                "round": 1,
                "test_loss": 0.5,
                "test_accuracy": 0.8,
                "class_accuracy": [0.75, None, None, None, None, None, None, None, None, 1.0],
                "train_loss": 0.75,
                "num_nodes": 1,
                "num_rejected": 1,
                "num_clipped": 0,
                "num_expired": 1,
                "num_late": 0,
                "share_of_data": 0.1,
                "seconds": 2.5,
                "fit_seconds": 2.0,
                "overhead_seconds": 0.5,
                "median_fit_seconds": 1.5,
                "broadcast_seconds": 0.125,
                "upload_seconds": None,
                "wait_seconds": 0.25,
                "average_seconds": 0.0625,
                "evaluate_seconds": 1.25,
                "write_seconds": None,
                "bytes_down": 300,
                "bytes_up": 202,
                "node_accuracy_mean": None,
                "node_accuracy_worst": None,
                "best": True,
            },
        ]


def test_the_ledger_has_a_line_for_every_verdict(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        run.commit(_round(1), Evaluation(0.5, 0.8))
    lines = read_json_lines(tmp_path / "a" / "ledger.jsonl")
    assert lines[0] == {
        "task": "t/1/pi-1",
        "round": 1,
        "judged": 1,
        "node": "pi-1",
        "shard": 3,
        "examples": 6000,
        "sha256": "ab" * 32,
        "verdict": "accepted",
        "reason": "",
        "seconds": 2.25,
        "bytes": 101,
        "threads": 1,
    }
    assert [line["verdict"] for line in lines] == ["accepted", "rejected", "expired"]
    assert lines[1]["reason"] == "fc3.bias holds NaN"


def test_numbers_that_json_cannot_hold_are_null(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(float("inf"), 0.1))
        assert run.metrics[0]["test_loss"] is None
        assert json.loads((run.path / "best.json").read_text())["loss"] is None


def test_the_best_is_a_plain_state_dict_with_its_facts(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        run.commit(_round(1), Evaluation(0.5, 0.8))
    model = torch.nn.Linear(2, 1)
    model.load_state_dict(torch.load(tmp_path / "a" / "best.pt", weights_only=True))
    assert model.weight.tolist() == [[1.0, 1.0]]
    assert json.loads((tmp_path / "a" / "best.json").read_text()) == {
        "round": 1,
        "accuracy": 0.8,
        "loss": 0.5,
        "sha256": weights_sha256(_state(1)),
        "model": "lenet5",
        "preprocessing": PAD,
    }


def test_the_best_has_the_higher_accuracy_then_the_lower_loss_then_comes_first(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        figures = [(0.5, 0.8), (0.4, 0.7), (0.4, 0.8), (0.4, 0.8), (9.0, 0.9), (float("nan"), 0.9)]
        found = [run.commit(_round(n), Evaluation(*figure)) for n, figure in enumerate(figures, start=1)]
        assert found == [True, False, True, False, True, False]
        assert [line["best"] for line in run.metrics] == [True, *found]
        assert run.best is not None
        assert run.best.round == 5


def test_later_changes_to_the_models_tensors_do_not_reach_what_is_kept(tmp_path: Path) -> None:
    state = _state(0)
    with _run(tmp_path) as run:
        run.begin(state, Evaluation(2.3, 0.9))
        state["weight"].add_(5)
        run.commit(_round(1), Evaluation(0.5, 0.8))
        assert run.checkpoint is not None
        assert run.checkpoint.best_state["weight"].tolist() == [[0.0, 0.0]]


def test_settings_are_written_with_versions_and_read_back(tmp_path: Path) -> None:
    changed = _settings({"training.learning_rate": 1e-05, "run.name": "a"})
    RunDirectory.create(tmp_path, "a", changed).close()
    written = yaml.safe_load((tmp_path / "a" / "settings.yaml").read_text())
    assert sorted(written["versions"]) == ["fedge", "flwr", "grpcio", "numpy", "platform", "python", "torch"]
    assert written["versions"]["torch"].startswith("2.")
    assert read_settings(tmp_path / "a") == changed
    assert settings_layer(tmp_path / "a")[1]["training.learning_rate"] == 1e-05


def test_a_taken_name_is_never_overwritten(tmp_path: Path) -> None:
    _run(tmp_path).close()
    with pytest.raises(RunDirectoryError) as error:
        _run(tmp_path)
    assert error.value.exit_code == 2
    assert str(error.value) == (
        f"run directory {tmp_path / 'a'} exists and is never overwritten; choose another --name, or --resume it"
    )


def test_without_a_name_it_is_the_date_and_time_and_unique(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with RunDirectory.create(tmp_path / "deep" / "runs", "", SETTINGS, now=NOON) as run:
            names.append(run.path.name)
    assert names == ["20260203-120000", "20260203-120000-2", "20260203-120000-3"]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "runs"
    with pytest.raises(RunDirectoryError) as error:
        RunDirectory.create(out, "a", SETTINGS)
    assert str(error.value) == (
        f"cannot make a run directory in {out}: Not a directory; choose another folder with --out"
    )


def test_a_directory_that_could_not_be_filled_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "write_settings", _no_space)
    with pytest.raises(RunDirectoryError, match="No space left on device; choose another folder with --out"):
        _run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_on_after_its_last_round(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        kept = Kept({"m": torch.tensor([2.0])}, {"r": 5}, {"failed_rounds": 1})
        run.commit(_round(1), Evaluation(0.5, 0.8), kept)
        run_id = run.run_id
    with RunDirectory.open_existing(tmp_path / "a") as run:
        assert run.notices == []
        assert run.checkpoint is not None
        assert (run.run_id, run.settings, run.checkpoint.round) == (run_id, SETTINGS, 1)
        assert run.checkpoint.strategy_state == {"m": torch.tensor([2.0])}
        assert run.checkpoint.random_states == {"r": 5}
        assert run.checkpoint.counters == {"failed_rounds": 1}
        assert weights_sha256(run.checkpoint.state) == weights_sha256(_state(1))
        assert not run.commit(_round(2), Evaluation(0.6, 0.7))
        assert [line["round"] for line in run.metrics] == [0, 1, 2]


def test_where_the_running_average_is_tested_it_is_the_best_and_the_newest_is_gone_on_from(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        assert run.commit(replace(_round(2), average=_state(1.5)), Evaluation(0.5, 0.8))
    with RunDirectory.open_existing(tmp_path / "a") as run:
        assert run.notices == []
        assert run.checkpoint is not None
        assert weights_sha256(run.checkpoint.state) == weights_sha256(_state(2))
    found = torch.load(tmp_path / "a" / "best.pt", weights_only=True)
    assert (
        weights_sha256(found)
        == weights_sha256(_state(1.5))
        == json.loads((tmp_path / "a" / "best.json").read_text())["sha256"]
    )


def test_nothing_to_resume_is_a_sentence_that_names_the_folder(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunDirectoryError) as error:
            newest_unfinished(out)
        assert str(error.value) == (
            f"nothing to resume: {out} holds no run; start one without --resume, or name its directory"
        )
    with pytest.raises(
        RunDirectoryError, match=r"nothing to resume: .* is not a run directory \(no settings\.yaml in it\)"
    ):
        RunDirectory.open_existing(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
    (tmp_path / "a" / "last.pt").unlink()  # somebody's mistake: there is something to lose
    with pytest.raises(RunDirectoryError, match="a holds no checkpoint yet"):
        RunDirectory.open_existing(tmp_path / "a")


@pytest.mark.parametrize("torn", [b"", b'{"round": 0, "te', b'{"round": 0}\n'])
def test_a_run_whose_server_was_killed_before_round_0_was_saved_begins_anew(tmp_path: Path, torn: bytes) -> None:
    _run(tmp_path).close()
    (tmp_path / "a" / "metrics.jsonl").write_bytes(torn)
    (tmp_path / "a" / ".last.pt.99.tmp").write_bytes(b"half")
    assert newest_unfinished(tmp_path) == tmp_path / "a"
    with RunDirectory.open_existing(tmp_path / "a") as run:
        run.continue_with(SETTINGS)
        run.begin(_state(0), Evaluation(2.3, 0.1))
        assert run.notices == []
        assert [line["test_loss"] for line in run.metrics] == [2.3]
    assert not (tmp_path / "a" / ".last.pt.99.tmp").exists()


def test_a_folder_whose_server_was_killed_before_it_wrote_settings_is_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for leftover in (".settings.yaml.99.tmp", ".lock", "run.log"):
        (folder / leftover).write_text("")
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        assert run.path == folder
    assert not (folder / ".settings.yaml.99.tmp").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("not ours")
    with pytest.raises(RunDirectoryError, match="b exists and is never overwritten"):
        _run(tmp_path, "b")


def test_a_server_that_was_quicker_keeps_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_beside_another(out: Path, name: str, now: datetime) -> Path:
        path = make(out, name, now)
        write_settings(path, SETTINGS)  # the other server, between this one's folder and its lock
        return path

    monkeypatch.setattr(run_directory, "make", make_beside_another)
    with pytest.raises(RunDirectoryError, match="a exists and is never overwritten"):
        _run(tmp_path)
    assert (tmp_path / "a" / "settings.yaml").exists()


def test_bare_resume_takes_the_newest_unfinished_run(tmp_path: Path) -> None:
    for age, name in enumerate(("newest-but-finished", "newer", "older")):
        with _run(tmp_path, name) as run:
            run.begin(_state(0), Evaluation(2.3, 0.1))
            if age == 0:
                run.finish()
        os.utime(tmp_path / name / "last.pt", (1000 - age, 1000 - age))
    with _run(tmp_path, "begun-last-but-not-saved") as run:
        assert newest_unfinished(tmp_path) == run.path
        run.begin(_state(0), Evaluation(2.3, 0.1))
        run.finish()
    assert newest_unfinished(tmp_path) == tmp_path / "newer"
    for name in ("newer", "older"):
        with RunDirectory.open_existing(tmp_path / name) as run:
            run.finish()
    with pytest.raises(RunDirectoryError, match="holds no unfinished run"):
        newest_unfinished(tmp_path)


def test_a_finished_run_says_so_unless_more_rounds_are_asked_for(tmp_path: Path) -> None:
    two = _settings({"federation.rounds": 2})
    with RunDirectory.create(tmp_path, "a", two) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        run.commit(_round(1), Evaluation(0.5, 0.8))
        run.commit(_round(2), Evaluation(0.4, 0.9))
        run.finish()
    with RunDirectory.open_existing(tmp_path / "a") as run:
        with pytest.raises(RunDirectoryError) as error:
            run.continue_with(two)
        assert str(error.value) == (
            f"{tmp_path / 'a'} is finished: 2 of 2 rounds are done, so there is nothing to resume;"
            " ask for more with --rounds"
        )
        run.continue_with(_settings({"federation.rounds": 3, "link.port": 9000}))
        run.commit(_round(3), Evaluation(0.4, 0.95))
        assert run.checkpoint is not None
        assert (run.checkpoint.finished, run.checkpoint.rounds_total) == (False, 3)
    assert read_settings(tmp_path / "a").federation.rounds == 3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training.learning_rate", 0.1, "training.learning_rate must stay 0.05 in a resumed run, got 0.1;"),
        ("data.partition", "dirichlet", "data.partition must stay 'iid' in a resumed run, got 'dirichlet';"),
        ("strategy.max_norm_ratio", 3.0, "strategy.max_norm_ratio must stay 5.0 in a resumed run, got 3.0;"),
        ("link.codec", "int8", "link.codec must stay 'float32' in a resumed run, got 'int8';"),
        ("run.seed", 1, "run.seed must stay 42 in a resumed run, got 1;"),
        (
            "federation.rounds",
            4,
            "federation.rounds must be at least 5, the rounds that the resumed run has done, got 4",
        ),
    ],
)
def test_a_changed_setting_of_the_learning_is_refused(key: str, value: object, message: str) -> None:
    before = {"training.learning_rate": 0.05, "strategy.max_norm_ratio": 5.0}
    with pytest.raises(SettingsError) as error:
        check_same(_settings(before), _settings(before | {key: value}), rounds_done=5)
    assert str(error.value).startswith(message)


def test_settings_that_do_not_change_the_learning_may_change() -> None:
    other: dict[str, Any] = {"federation.rounds": 20, "federation.clients": 5, "link.port": 1, "client.threads": 4}
    other |= {"run.out": "elsewhere", "run.name": "b", "run.engine": "ray"}
    check_same(SETTINGS, _settings(other), rounds_done=10)


def test_what_a_kill_between_commit_and_best_leaves_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        monkeypatch.setattr(run, "_write_best", lambda: None)
        run.commit(_round(1), Evaluation(0.5, 0.8))
    monkeypatch.undo()
    _expect_mended(tmp_path / "a", 1)
    (tmp_path / "a" / "best.pt").unlink()
    _expect_mended(tmp_path / "a", 1)
    (tmp_path / "a" / "best.json").write_text("{}")
    _expect_mended(tmp_path / "a", 1)
    best = tmp_path / "a" / "best.pt"
    best.write_bytes(best.read_bytes().replace(b"cpu", b"spu", 1))  # whole weights, for no device that exists
    _expect_mended(tmp_path / "a", 1)


def test_a_damaged_last_falls_back_to_the_round_before_as_a_whole(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        run.commit(_round(1), Evaluation(0.5, 0.8))
        run.commit(_round(2), Evaluation(0.4, 0.9))
    path = tmp_path / "a"
    (path / "last.pt").write_bytes((path / "last.pt").read_bytes()[:-1])
    with RunDirectory.open_existing(path) as run:
        assert run.notices == [
            f"{path / 'last.pt'} is damaged: continuing from last.prev.pt, after round 1",
            f"{path / 'best.pt'} was not of round 1: written anew",
        ]
        assert [line["round"] for line in run.metrics] == [0, 1]
        assert len(read_json_lines(path / "ledger.jsonl")) == 3
        run.commit(_round(2), Evaluation(0.4, 0.9))
    (path / "last.pt").unlink()  # the damaged file did not become the one before
    with RunDirectory.open_existing(path) as run:
        assert run.notices[0] == f"{path / 'last.pt'} is missing: continuing from last.prev.pt, after round 1"


def test_an_unusable_run_is_let_go_of_again(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
    whole = (tmp_path / "a" / "last.pt").read_bytes()
    (tmp_path / "a" / "last.pt").write_bytes(b"")
    with pytest.raises(RunDirectoryError, match="cannot resume"):
        RunDirectory.open_existing(tmp_path / "a")
    (tmp_path / "a" / "last.pt").write_bytes(whole)
    RunDirectory.open_existing(tmp_path / "a").close()


def test_a_log_that_lost_whole_rounds_is_said_and_goes_on(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        run.commit(_round(1), Evaluation(0.5, 0.8))
    log = tmp_path / "a" / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + lines[1][:7])
    with RunDirectory.open_existing(tmp_path / "a") as run:
        whole = len(lines[0]) + len(lines[1])
        assert run.notices == [f"{log} lost {len(lines[1])} of its {whole} bytes; the run goes on"]
        run.commit(_round(2), Evaluation(0.4, 0.9))
        assert [line["round"] for line in run.metrics] == [0, 2]


def test_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        run.tensorboard.mkdir()
    leftovers = [run.path / ".last.pt.4711.tmp", run.tensorboard / ".events.out.tfevents.1.pi.4711.0.end.4711.tmp"]
    for path in leftovers:
        path.write_bytes(b"half of a")
    RunDirectory.open_existing(tmp_path / "a").close()
    assert [path for path in leftovers if path.exists()] == []


@given(st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_log_torn_at_any_byte_goes_on_without_a_gap_or_a_double(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    offset = 0
    for number in range(3):
        offset = append(path, offset, to_json_lines([{"round": number, "text": "a\nb · c"}]))
    following = to_json_lines([{"round": 3}, {"round": 4}])
    torn = data.draw(st.integers(0, len(following)))
    tail = data.draw(st.sampled_from([b"", b"\0\0\0", b"\0\n"]))
    with path.open("ab") as file:
        file.write(following[:torn] + tail)
    complete = following[:torn].count(b"\n")
    assert [line["round"] for line in read_json_lines(path)] == [0, 1, 2, 3, 4][: 3 + complete]
    assert cut(path, offset) == offset
    offset = append(path, offset, to_json_lines([{"round": 3}]))
    assert [line["round"] for line in read_json_lines(path)] == [0, 1, 2, 3]
    assert path.stat().st_size == offset


def test_a_second_server_is_refused_until_the_first_is_gone_even_if_killed(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
    script = (
        "import sys, time; from pathlib import Path; from server.storage.run_directory import RunDirectory\n"
        "run = RunDirectory.open_existing(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(RunDirectoryError) as error:
                RunDirectory.open_existing(tmp_path / "a")
            assert str(error.value) == (
                f"run directory {tmp_path / 'a'} is in use by another server; stop that one first or start a new run"
            )
        finally:
            other.send_signal(signal.SIGKILL)
            other.wait()
    RunDirectory.open_existing(tmp_path / "a").close()


# A limit on the size of files refuses a write as a full disk does (EFBIG for ENOSPC), on every machine and without
# rights: here it stops, in turn, the log, the checkpoint and best.pt of round 2.
_FULL = """
import resource, sys
from pathlib import Path
from tests.unit.test_run_directory import _round
from common.errors import FedgeError
from common.training import Evaluation
from server.storage.run_directory import RunDirectory
run = RunDirectory.open_existing(Path(sys.argv[1]))
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    run.commit(_round(2), Evaluation(0.4, 0.9))
except FedgeError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(error)
    run.close()
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(("file", "limit"), [("ledger.jsonl", 750), ("last.pt", 1800)])
def test_a_full_disk_ends_the_run_with_a_sentence_and_loses_nothing(tmp_path: Path, file: str, limit: int) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        run.commit(_round(1), Evaluation(0.5, 0.8))
    path = tmp_path / "a"
    before = _contents(path)
    assert len(before["ledger.jsonl"]) <= 750 < 2 * len(before["ledger.jsonl"]) < 1800 < len(before["last.pt"])
    command = [sys.executable, "-c", _FULL, str(path), str(limit)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [
        f"cannot write {path / file}: File too large; the run is saved up to round 1",
        f"free space and continue with: python -m server --resume {path}",
    ]
    assert (done.returncode, done.stderr) == (1, "")
    with RunDirectory.open_existing(path) as run:
        assert run.notices == []
        assert _contents(path) == before
        assert run.commit(_round(2), Evaluation(0.4, 0.9))


@pytest.mark.parametrize(
    ("call", "file", "saved", "cure"),
    [
        ("append", "ledger.jsonl", 1, "free space"),
        ("write_atomically", "best.pt", 2, "free space"),
        ("write_atomically", "best.pt", 2, "mend that"),
    ],
)
def test_the_last_round_that_is_saved_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, file: str, saved: int, cure: str
) -> None:
    code = errno.ENOSPC if cure == "free space" else errno.EROFS

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with _run(tmp_path, "with space") as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
        run.commit(_round(1), Evaluation(0.5, 0.8))
        monkeypatch.setattr(run_directory, call, refuse)
        with pytest.raises(RunFailed) as error:
            run.commit(_round(2), Evaluation(0.4, 0.9))
    monkeypatch.undo()
    path = tmp_path / "with space"
    assert str(error.value) == (
        f"cannot write {path / file}: {os.strerror(code)}; the run is saved up to round {saved}\n"
        f"{cure} and continue with: python -m server --resume '{path}'"
    )
    with RunDirectory.open_existing(path) as run:
        assert run.checkpoint is not None
        assert run.checkpoint.round == saved
        assert run.best is not None
        assert run.best.sha256 == weights_sha256(torch.load(path / "best.pt", weights_only=True))


def test_before_round_0_there_is_nothing_to_continue(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        (run.path / "ledger.jsonl").mkdir()
        with pytest.raises(
            RunFailed, match=r"ledger\.jsonl: Is a directory; nothing is saved yet\nmend that and start"
        ):
            run.begin(_state(0), Evaluation(2.3, 0.1))


def test_a_run_that_fails_before_round_0_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no luck"), _run(tmp_path):
        raise RunFailed("no luck")
    assert list(tmp_path.iterdir()) == []
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
    with pytest.raises(RunFailed, match="no luck"), RunDirectory.open_existing(run.path):
        raise RunFailed("no luck")
    assert (run.path / "last.pt").exists()


def test_a_run_directory_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with _run(tmp_path) as run:
        run.begin(_state(0), Evaluation(2.3, 0.1))
    (tmp_path / "a" / "run.log").unlink()
    (tmp_path / "a" / "run.log").mkdir()
    with pytest.raises(RunDirectoryError, match=r"cannot write in .*: Is a directory; mend that and resume"):
        RunDirectory.open_existing(tmp_path / "a")
    (tmp_path / "a" / "run.log").rmdir()
    (tmp_path / "a" / "metrics.jsonl").unlink()
    (tmp_path / "a" / "metrics.jsonl").mkdir()
    with pytest.raises(RunDirectoryError, match=r"cannot mend run directory .*: Is a directory"):
        RunDirectory.open_existing(tmp_path / "a")


def test_the_log_takes_info_and_above_with_iso_times_until_it_is_closed(tmp_path: Path) -> None:
    root_level = logging.getLogger().level
    with _run(tmp_path):
        logging.getLogger("one").info("kept · this")
        logging.getLogger("one").debug("not this")
        logging.getLogger("two").warning("and this")
    logging.getLogger("one").warning("not this either")
    lines = (tmp_path / "a" / "run.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["INFO one: kept · this", "WARNING two: and this"]
    assert datetime.fromisoformat(lines[0].split(" ")[0]).utcoffset() is not None
    assert logging.getLogger().level == root_level


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_log_that_cannot_be_written_costs_lines_and_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "settings.yaml").write_text("")
    (tmp_path / "a" / "run.log").symlink_to("/dev/full")
    with RunDirectory(tmp_path / "a", SETTINGS):
        logging.getLogger("one").warning("lost")
    assert capsys.readouterr().err == ""


def _run(out: Path, name: str = "a") -> RunDirectory:
    return RunDirectory.create(out, name, SETTINGS)


def _settings(changes: dict[str, Any]) -> Settings:
    return load(("the test", changes))


def _state(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((1, 2), float(value)), "bias": torch.full((1,), float(value))}


def _round(number: int) -> Round:
    nan = float("nan")
    return Round(
        number=number,
        state=_state(number),
        reports=(
            NodeReport(
                f"t/{number}/pi-1", number, "pi-1", 3, 6000, "ab" * 32, "accepted", "", 0.75, 2.0, 2.25, 100, 101, 1
            ),
            NodeReport(
                f"t/{number}/pi-2",
                number,
                "pi-2",
                4,
                0,
                "cd" * 32,
                "rejected",
                "fc3.bias holds NaN",
                nan,
                0.0,
                2.5,
                100,
                101,
                1,
            ),
            NodeReport(f"t/{number}/pi-3", number, "pi-3", -1, 0, "", "expired", "link lost", nan, 0.0, 2.5, 100, 0, 0),
        ),
        averaged=True,
        train_loss=0.75,
        share_of_data=0.1,
        seconds=2.5,
        fit_seconds=2.0,
        overhead_seconds=0.5,
        bytes_down=300,
        bytes_up=202,
        phases=Phases(broadcast=0.125, train=2.0, train_median=1.5, wait=0.25, average=0.0625, evaluate=1.25),
    )


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name not in (".lock", "run.log")}


def _expect_mended(path: Path, number: int) -> None:
    with RunDirectory.open_existing(path) as run:
        assert run.notices == [f"{path / 'best.pt'} was not of round {number}: written anew"]
    assert weights_sha256(torch.load(path / "best.pt", weights_only=True)) == weights_sha256(_state(number))
    assert json.loads((path / "best.json").read_text())["round"] == number
