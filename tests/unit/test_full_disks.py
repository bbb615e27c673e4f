"""Rule: a disk that takes no more ends the run with a sentence that says what is saved, and nothing of that is lost."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.errors import RunDirectoryError, RunFailed
from common.models import weights_sha256
from common.training import Evaluation
from server.storage import run_directory
from server.storage.run_directory import RunDirectory
from tests.tiny_runs import contents_of, tiny_round, tiny_run, tiny_state

ROOT = Path(__file__).resolve().parents[2]


# A limit on the size of files refuses a write as a full disk does (EFBIG for ENOSPC), on every machine and without
# rights: here it stops, in turn, the log, the checkpoint and best.pt of round 2.
_FULL = """
import resource, sys
from pathlib import Path
from tests.tiny_runs import tiny_round
from common.errors import FedgeError
from common.training import Evaluation
from server.storage.run_directory import RunDirectory
run = RunDirectory.open_existing(Path(sys.argv[1]))
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    run.commit(tiny_round(2), Evaluation(0.4, 0.9))
except FedgeError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(error)
    run.close()
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(("file", "limit"), [("ledger.jsonl", 750), ("last.pt", 1800)])
def test_a_full_disk_ends_the_run_with_a_sentence_and_loses_nothing(tmp_path: Path, file: str, limit: int) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        run.commit(tiny_round(1), Evaluation(0.5, 0.8))
    path = tmp_path / "a"
    before = contents_of(path)
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
        assert contents_of(path) == before
        assert run.commit(tiny_round(2), Evaluation(0.4, 0.9))


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

    with tiny_run(tmp_path, "with space") as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        run.commit(tiny_round(1), Evaluation(0.5, 0.8))
        monkeypatch.setattr(run_directory, call, refuse)
        with pytest.raises(RunFailed) as error:
            run.commit(tiny_round(2), Evaluation(0.4, 0.9))
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
    with tiny_run(tmp_path) as run:
        (run.path / "ledger.jsonl").mkdir()
        with pytest.raises(
            RunFailed, match=r"ledger\.jsonl: Is a directory; nothing is saved yet\nmend that and start"
        ):
            run.begin(tiny_state(0), Evaluation(2.3, 0.1))


def test_a_run_directory_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
    (tmp_path / "a" / "run.log").unlink()
    (tmp_path / "a" / "run.log").mkdir()
    with pytest.raises(RunDirectoryError, match=r"cannot write in .*: Is a directory; mend that and resume"):
        RunDirectory.open_existing(tmp_path / "a")
    (tmp_path / "a" / "run.log").rmdir()
    (tmp_path / "a" / "metrics.jsonl").unlink()
    (tmp_path / "a" / "metrics.jsonl").mkdir()
    with pytest.raises(RunDirectoryError, match=r"cannot mend run directory .*: Is a directory"):
        RunDirectory.open_existing(tmp_path / "a")
