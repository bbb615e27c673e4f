"""Rule: what a kill or a damaged file has left of a run is mended when it is opened, said, and gone on from."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from common.errors import RunDirectoryError
from common.models import weights_sha256
from common.training import Evaluation
from server.storage.durable import append, cut, read_json_lines, to_json_lines
from server.storage.run_directory import RunDirectory
from tests.tiny_runs import tiny_round, tiny_run, tiny_state


def test_what_a_kill_between_commit_and_best_leaves_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        monkeypatch.setattr(run, "_write_best", lambda: None)
        run.commit(tiny_round(1), Evaluation(0.5, 0.8))
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
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        run.commit(tiny_round(1), Evaluation(0.5, 0.8))
        run.commit(tiny_round(2), Evaluation(0.4, 0.9))
    path = tmp_path / "a"
    (path / "last.pt").write_bytes((path / "last.pt").read_bytes()[:-1])
    with RunDirectory.open_existing(path) as run:
        assert run.notices == [
            f"{path / 'last.pt'} is damaged: continuing from last.prev.pt, after round 1",
            f"{path / 'best.pt'} was not of round 1: written anew",
        ]
        assert [line["round"] for line in run.metrics] == [0, 1]
        assert len(read_json_lines(path / "ledger.jsonl")) == 3
        run.commit(tiny_round(2), Evaluation(0.4, 0.9))
    (path / "last.pt").unlink()  # the damaged file did not become the one before
    with RunDirectory.open_existing(path) as run:
        assert run.notices[0] == f"{path / 'last.pt'} is missing: continuing from last.prev.pt, after round 1"


def test_an_unusable_run_is_let_go_of_again(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
    whole = (tmp_path / "a" / "last.pt").read_bytes()
    (tmp_path / "a" / "last.pt").write_bytes(b"")
    with pytest.raises(RunDirectoryError, match="cannot resume"):
        RunDirectory.open_existing(tmp_path / "a")
    (tmp_path / "a" / "last.pt").write_bytes(whole)
    RunDirectory.open_existing(tmp_path / "a").close()


def test_a_log_that_lost_whole_rounds_is_said_and_goes_on(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        run.commit(tiny_round(1), Evaluation(0.5, 0.8))
    log = tmp_path / "a" / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + lines[1][:7])
    with RunDirectory.open_existing(tmp_path / "a") as run:
        whole = len(lines[0]) + len(lines[1])
        assert run.notices == [f"{log} lost {len(lines[1])} of its {whole} bytes; the run goes on"]
        run.commit(tiny_round(2), Evaluation(0.4, 0.9))
        assert [line["round"] for line in run.metrics] == [0, 2]


def test_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
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


def _expect_mended(path: Path, number: int) -> None:
    with RunDirectory.open_existing(path) as run:
        assert run.notices == [f"{path / 'best.pt'} was not of round {number}: written anew"]
    assert weights_sha256(torch.load(path / "best.pt", weights_only=True)) == weights_sha256(tiny_state(number))
    assert json.loads((path / "best.json").read_text())["round"] == number
