"""last.pt is all of one round or not used at all: whatever is cut or flipped, the last usable round is found."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import RunDirectoryError
from common.models import weights_sha256
from server.storage import durable
from server.storage.checkpoint import Best, Checkpoint, load_last, load_state, save, to_bytes
from server.storage.durable import replace_keeping, write_atomically


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = replace(
        _checkpoint(2),
        strategy_state={"momentum": [torch.tensor([0.5])], "step": 3, "rate": 0.25, "name": "fedavgm", "none": None},
        random_states={"numpy": torch.tensor([1, 2], dtype=torch.uint8), "python": 7},
        counters={"failed_rounds": 1},
    )
    save(tmp_path, saved)
    loaded, notice = load_last(tmp_path)
    assert notice == ""
    assert _facts(loaded) == _facts(saved)
    assert loaded.strategy_state["momentum"] == [torch.tensor([0.5])]
    assert loaded.strategy_state["rate"] == 0.25
    assert torch.equal(_tensor(loaded.random_states["numpy"]), torch.tensor([1, 2], dtype=torch.uint8))
    assert list(torch.load(tmp_path / "last.pt", weights_only=True))[:3] == ["format", "run_id", "round"]


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    for number in (0, 1, 2):
        save(tmp_path, _checkpoint(number))
    (tmp_path / "last.pt").unlink()
    former, notice = load_last(tmp_path)
    assert former.round == 1
    assert notice == f"{tmp_path / 'last.pt'} is missing: continuing from last.prev.pt, after round 1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.prev.pt"]


def test_cut_anywhere_the_one_before_is_found(tmp_path: Path) -> None:
    save(tmp_path, _checkpoint(1))
    save(tmp_path, _checkpoint(2))
    whole = (tmp_path / "last.pt").read_bytes()
    assert len(whole) > 2048
    for length in [*range(2049), *range(2049, len(whole), 61), *range(len(whole) - 25, len(whole))]:
        (tmp_path / "last.pt").write_bytes(whole[:length])
        found, notice = load_last(tmp_path)
        assert found.round == 1, length
        assert notice == f"{tmp_path / 'last.pt'} is damaged: continuing from last.prev.pt, after round 1"


def test_a_flipped_bit_never_changes_what_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, _checkpoint(1))
    save(tmp_path, _checkpoint(2))
    whole = (tmp_path / "last.pt").read_bytes()
    rounds_found = set()
    for position in range(0, len(whole), 5):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        (tmp_path / "last.pt").write_bytes(flipped)
        found, _ = load_last(tmp_path)
        assert _facts(found) == _facts(_checkpoint(found.round)), position
        rounds_found.add(found.round)
    assert rounds_found == {1, 2}  # a bit of padding between the zip's members changes nothing


def test_both_damaged_is_an_error_that_names_both(tmp_path: Path) -> None:
    save(tmp_path, _checkpoint(1))
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(RunDirectoryError) as error:
        load_last(tmp_path)
    assert str(error.value) == (
        f"cannot resume {tmp_path}: last.pt is damaged and last.prev.pt is missing;"
        " restore one of them or start a new run"
    )


def test_a_file_that_cannot_be_a_checkpoint_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "last.prev.pt").mkdir()
    with (tmp_path / "last.pt").open("wb") as file:
        file.truncate(2**30 + 1)  # sparse: takes no space
    with pytest.raises(RunDirectoryError) as error:
        load_last(tmp_path)
    assert "last.pt is too large for a checkpoint (1073741825 bytes) and" in str(error.value)
    assert "and last.prev.pt cannot be read (Is a directory);" in str(error.value)


def test_no_checkpoint_is_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no checkpoint yet, so there is nothing to resume"):
        load_last(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "is not a checkpoint"),
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"format": 1, "round": 3, "sha256": "0" * 64}, "is damaged"),
        ({"format": 1, "w": torch.zeros(9, device="meta")}, "is damaged"),
    ],
)
def test_other_files_are_refused_by_reason(tmp_path: Path, content: object, reason: str) -> None:
    (tmp_path / "last.pt").write_bytes(to_bytes(content))
    with pytest.raises(RunDirectoryError) as error:
        load_last(tmp_path)
    assert f"last.pt {reason} and" in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"round": -1}, "round"),
        ({"finished": 1}, "finished"),
        ({"run_id": 7}, "run_id"),
        ({"counters": {"failed_rounds": True}}, "counters"),
        ({"offsets": {"metrics.jsonl": -5}}, "offsets"),
        ({"state": {}}, "state"),
        ({"state": {"w": 1.0}}, "state"),
        ({"best": Best(9, 0.5, 1.0, "")}, "best"),
        ({"best_state": {"w": torch.zeros(300)}}, "best_state"),
        ({"strategy_state": None}, "strategy_state"),
    ],
)
def test_a_part_out_of_its_range_is_named(tmp_path: Path, wrong: dict[str, object], part: str) -> None:
    save(tmp_path, replace(_checkpoint(1), **wrong))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(RunDirectoryError, match=rf"last\.pt has an unusable {part} and"):
        load_last(tmp_path)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    (tmp_path / "last.pt").write_bytes(to_bytes({"format": 1, "trap": Trap()}))
    with pytest.raises(RunDirectoryError, match=r"last\.pt is damaged"):
        load_last(tmp_path)
    assert not (tmp_path / "trapped").exists()


def test_a_state_of_best_is_loaded_or_none(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    assert load_state(path) is None
    path.write_bytes(to_bytes({"w": torch.ones(2)}))
    assert weights_sha256(load_state(path) or {}) == weights_sha256({"w": torch.ones(2)})
    path.write_bytes(to_bytes({"w": "not a tensor"}))
    assert load_state(path) is None


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "fsync", _broken)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(tmp_path / "a", b"new")
    with pytest.raises(OSError, match="Input/output error"):
        replace_keeping(tmp_path / "a", tmp_path / "b", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_where_links_are_not_supported_the_former_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _broken)  # as on vfat, the file system of many SD cards
    replace_keeping(tmp_path / "a", tmp_path / "b", b"1")
    replace_keeping(tmp_path / "a", tmp_path / "b", b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"2", "b": b"1"}


def test_killed_between_the_two_renames_the_next_save_leaves_nothing_behind(tmp_path: Path) -> None:
    replace_keeping(tmp_path / "a", tmp_path / "b", b"1")
    os.link(tmp_path / "a", tmp_path / "b")  # the former has its new name, the fresh one is not there yet
    replace_keeping(tmp_path / "a", tmp_path / "b", b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"2", "b": b"1"}


def test_last_is_never_absent_or_partial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, former, seen = tmp_path / "a", tmp_path / "b", []
    replace_keeping(last, former, b"1")

    def watched(folder: Path) -> None:
        seen.append((last.read_bytes(), former.read_bytes()))

    rename = Path.replace

    def watched_rename(self: Path, target: Path) -> Path:
        seen.append((last.read_bytes(), former.read_bytes() if former.exists() else b""))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", watched_rename)
    monkeypatch.setattr(durable, "sync_folder", watched)
    replace_keeping(last, former, b"2")
    assert seen == [(b"1", b""), (b"1", b"1"), (b"2", b"1")]


def _checkpoint(number: int) -> Checkpoint:
    state = {"w": torch.full((300,), float(number)), "b": torch.tensor(number)}
    return Checkpoint(
        run_id="0123456789abcdef",
        round=number,
        rounds_total=10,
        finished=False,
        state=state,
        best_state=state,
        best=Best(number, 0.5, 1.25, weights_sha256(state)),
        strategy_state={},
        random_states={},
        counters={},
        offsets={"metrics.jsonl": 10 * number, "ledger.jsonl": 0},
    )


def _facts(checkpoint: Checkpoint) -> tuple[object, ...]:
    tensors = weights_sha256(checkpoint.state), weights_sha256(checkpoint.best_state)
    plain = checkpoint.run_id, checkpoint.round, checkpoint.rounds_total, checkpoint.finished, checkpoint.best
    return *plain, *tensors, checkpoint.counters, checkpoint.offsets


def _tensor(value: object) -> torch.Tensor:
    assert isinstance(value, torch.Tensor)
    return value


def _broken(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")
