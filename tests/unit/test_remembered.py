"""Rule: what virtual nodes remember comes back bit for bit, or the checkpoint is refused with a sentence."""

from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from common.arrays import to_record, to_state
from common.errors import RunDirectoryError
from server import remembered
from server.remembered import from_memory, to_memory

OWED = {"weight": torch.tensor([[0.5, -1.25]]), "bias": torch.tensor([3.0])}


def node() -> RecordDict:
    return RecordDict({"owed": to_record(OWED), "since": ConfigRecord({"run": "ab", "round": 3, "shard": 0})})


def test_what_was_put_away_comes_back() -> None:
    (found,) = from_memory(to_memory({7: node(), 8: RecordDict()})).items()
    assert found[0] == 7
    assert dict(found[1].config_records["since"]) == {"run": "ab", "round": 3, "shard": 0}
    state = to_state(found[1].array_records["owed"])
    assert list(state) == ["weight", "bias"]
    assert all(torch.equal(state[name], value) for name, value in OWED.items())


def test_what_a_checkpoint_has_no_room_for_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(len(array.data) for array in node().array_records["owed"].values())
    monkeypatch.setattr(remembered, "MAX_BYTES", 2 * size)
    assert to_memory({1: node()})
    assert to_memory({1: node(), 2: node()}) == {}


@pytest.mark.parametrize(
    "memory",
    [
        {"one": {"arrays": {}, "scalars": {}}},
        {"1": 7},
        {"1": {"arrays": {}}},
        {"1": {"arrays": {"owed": {"weight": 3}}, "scalars": {}}},
        {"1": {"arrays": {}, "scalars": {"since": {"round": None}}}},
    ],
)
def test_what_is_no_memory_of_nodes_is_refused(memory: Any) -> None:
    with pytest.raises(RunDirectoryError, match="the checkpoint's virtual nodes cannot be used; start a new run"):
        from_memory(memory)
