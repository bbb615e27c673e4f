"""Rule: what a disk gives back is the very update that the node kept, or nothing; a disk that fails stops nobody."""

from pathlib import Path

import pytest

from client.spool import Kept, Spool
from common import fleet_pb2 as pb
from common.wire import MAX_TASK_BYTES

KEY = ("run/3/pi", b"\x01" * 32)
UPDATE = pb.Update(
    task="run/3/pi",
    weights=pb.Weights(codec="raw", buffer=b"weights"),
    metrics={"shard": pb.Value(integer=3), "train-loss": pb.Value(real=0.5), "threads": pb.Value(integer=1)},
)


def kept(state: Path, name: str = "pi") -> tuple[Kept | None, list[str]]:
    """What a new process finds, and what it says."""
    told: list[str] = []
    return Spool(state, name, told.append).last, told


def file(state: Path, name: str = "pi") -> Path:
    return state / "updates" / f"{name}.update"


def spooled(state: Path) -> Spool:
    spool = Spool(state, "pi")
    spool.keep(KEY, UPDATE)
    return spool


@pytest.mark.parametrize("survives_power_cut", [False, True])
def test_a_new_process_finds_the_same_bytes(tmp_path: Path, survives_power_cut: bool) -> None:
    Spool(tmp_path, "pi").keep(KEY, UPDATE, survives_power_cut)
    found, told = kept(tmp_path)
    assert found is not None
    assert (found.key, told) == (KEY, [])
    assert found.update.SerializeToString(deterministic=True) == UPDATE.SerializeToString(deterministic=True)
    assert file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert file(tmp_path).parent.stat().st_mode & 0o777 == 0o700


def test_only_the_last_one_is_kept(tmp_path: Path) -> None:
    spool = spooled(tmp_path)
    spool.keep(("run/4/pi", b"\x02" * 32), pb.Update(task="run/4/pi"))
    found, _ = kept(tmp_path)
    assert found == Kept(("run/4/pi", b"\x02" * 32), pb.Update(task="run/4/pi"))
    assert [path.name for path in file(tmp_path).parent.iterdir()] == ["pi.update"]


@pytest.mark.parametrize(("verdict", "is_there"), [("accepted", False), ("rejected", False), ("expired", True)])
def test_the_file_goes_with_the_verdict_and_the_memory_stays(tmp_path: Path, verdict: str, is_there: bool) -> None:
    spool = spooled(tmp_path)
    spool.judged("run/2/pi", "accepted")
    assert file(tmp_path).exists()
    spool.judged("run/3/pi", verdict)
    assert file(tmp_path).exists() == is_there
    assert spool.last == Kept(KEY, UPDATE)


def test_an_error_takes_the_place_of_an_update_but_not_on_disk(tmp_path: Path) -> None:
    spool = spooled(tmp_path)
    failed = pb.Update(task="run/4/pi", error="out of memory")
    spool.keep(("run/4/pi", b"\x02" * 32), failed)
    assert spool.last is not None
    assert spool.last.update == failed
    assert kept(tmp_path) == (None, [])


def test_damage_at_any_byte_is_noticed_said_and_removed(tmp_path: Path) -> None:
    spooled(tmp_path)
    path = file(tmp_path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for damaged in (whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :], whole[:place]):
            path.write_bytes(damaged)
            found, told = kept(tmp_path)
            if found is None:
                assert len(told) == 1
                assert told[0].startswith(f"{path} is ")
                assert told[0].endswith(": removed")
                assert not path.exists()
            else:  # another digit in the model's digest: an update for a model that nobody asks about
                assert found.key != KEY
                assert found.update == UPDATE


def test_the_update_of_another_node_is_removed(tmp_path: Path) -> None:
    spooled(tmp_path)
    file(tmp_path).rename(file(tmp_path, "pi-2"))
    assert kept(tmp_path, "pi-2") == (None, [f"{file(tmp_path, 'pi-2')} is no update of node pi-2: removed"])
    assert not file(tmp_path, "pi-2").exists()


def test_a_file_that_is_larger_than_any_update_is_not_read(tmp_path: Path) -> None:
    file(tmp_path).parent.mkdir()
    with file(tmp_path).open("wb") as sink:
        sink.truncate(MAX_TASK_BYTES + 1)  # sparse: it takes no room
    assert kept(tmp_path) == (None, [f"{file(tmp_path)} is larger than any update: removed"])


def test_a_half_written_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    spooled(tmp_path)
    part = file(tmp_path).with_name(".pi.update.123.part")
    part.write_bytes(b"half")
    found, told = kept(tmp_path)
    assert (found, told, part.exists()) == (Kept(KEY, UPDATE), [], False)


def test_a_disk_that_fails_is_told_once_and_the_update_is_in_memory(tmp_path: Path) -> None:
    file(tmp_path).parent.write_bytes(b"no folder")
    told: list[str] = []
    spool = Spool(tmp_path, "pi", told.append)
    for number in (3, 4):
        spool.keep((f"run/{number}/pi", b"\x01" * 32), pb.Update(task=f"run/{number}/pi"))
    assert spool.last is not None
    assert spool.last.key[0] == "run/4/pi"
    assert told == [
        f"cannot keep updates in {file(tmp_path)}: Not a directory; training goes on, a restart forgets them"
    ]
