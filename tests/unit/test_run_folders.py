"""Rule: a run has a folder of its own that nobody overwrites, and one that never saved anything leaves none."""

import errno
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from common.errors import RunDirectoryError, RunFailed
from common.training import Evaluation
from server.storage import run_directory
from server.storage.folders import make
from server.storage.run_directory import RunDirectory
from server.storage.settings import write_settings
from tests.tiny_runs import SETTINGS, tiny_run, tiny_state

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime.fromisoformat("2026-02-03T12:00:00+00:00")


def test_a_taken_name_is_never_overwritten(tmp_path: Path) -> None:
    tiny_run(tmp_path).close()
    with pytest.raises(RunDirectoryError) as error:
        tiny_run(tmp_path)
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
        tiny_run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_server_was_killed_before_it_wrote_settings_is_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for leftover in (".settings.yaml.99.tmp", ".lock", "run.log"):
        (folder / leftover).write_text("")
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        assert run.path == folder
    assert not (folder / ".settings.yaml.99.tmp").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("not ours")
    with pytest.raises(RunDirectoryError, match="b exists and is never overwritten"):
        tiny_run(tmp_path, "b")


def test_a_server_that_was_quicker_keeps_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_beside_another(out: Path, name: str, now: datetime) -> Path:
        path = make(out, name, now)
        write_settings(path, SETTINGS)  # the other server, between this one's folder and its lock
        return path

    monkeypatch.setattr(run_directory, "make", make_beside_another)
    with pytest.raises(RunDirectoryError, match="a exists and is never overwritten"):
        tiny_run(tmp_path)
    assert (tmp_path / "a" / "settings.yaml").exists()


def test_a_second_server_is_refused_until_the_first_is_gone_even_if_killed(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
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


def test_a_run_that_fails_before_round_0_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no luck"), tiny_run(tmp_path):
        raise RunFailed("no luck")
    assert list(tmp_path.iterdir()) == []
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
    with pytest.raises(RunFailed, match="no luck"), RunDirectory.open_existing(run.path):
        raise RunFailed("no luck")
    assert (run.path / "last.pt").exists()


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
