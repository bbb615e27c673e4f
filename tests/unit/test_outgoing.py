"""Rule: a node says what changed, and what one update leaves out goes with the next one of the same run and shard."""

from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from client.outgoing import outgoing
from common.arrays import from_encoded, to_record
from common.errors import WireError
from common.layers import load
from common.models import State, initial_state
from common.records import Task, read_task, task_config

MODEL = initial_state("lenet5", 0)


def task(codec: str, round_number: int = 1, run: str = "run", top_k: float = 0.01) -> Task:
    settings = load(("the test", {"link.codec": codec, "link.top_k": top_k}))
    config = ConfigRecord({**task_config(settings, run, ("digest",)), "server-round": round_number})
    return read_task(RecordDict({"arrays": to_record(MODEL), "config": config}))


def moved(by: float) -> State:
    """The model after every weight went ``by`` further, and the first bias of the last layer 7 times as far."""
    state = {name: value + by for name, value in MODEL.items()}
    state["fc3.bias"][0] += 6 * by
    return state


def said(asked: Task, learned: State, remembered: RecordDict, shard: int = 0) -> State:
    """The change that the server reads out of the update."""
    return from_encoded(outgoing(asked, learned, shard, remembered), asked.codec, MODEL)


def total(state: State) -> float:
    return sum(float(value.double().sum()) for value in state.values())


def test_without_a_codec_the_weights_travel_as_they_are() -> None:
    record = outgoing(task("float32"), moved(0.5), 0, RecordDict())
    assert record == to_record(moved(0.5))


def test_the_change_travels_and_not_the_weights() -> None:
    found = said(task("float16"), moved(0.25), RecordDict())
    assert all(
        torch.allclose(value, torch.tensor(0.25), atol=1e-4) for name, value in found.items() if "fc3" not in name
    )
    assert float(found["fc3.bias"][0]) == pytest.approx(1.75, abs=1e-3)


def test_chance_is_that_of_seed_round_and_shard() -> None:
    learned = moved(0.3)
    first = outgoing(task("int2"), learned, 0, RecordDict())
    assert outgoing(task("int2"), learned, 0, RecordDict()) == first
    assert outgoing(task("int2", round_number=2), learned, 0, RecordDict()) != first
    assert outgoing(task("int2"), learned, 1, RecordDict()) != first


@pytest.mark.parametrize("codec", ["sign", "top-k"])
def test_what_was_said_and_what_is_owed_are_what_changed(codec: str) -> None:
    remembered, changed, heard = RecordDict(), torch.zeros(10), torch.zeros(10)
    for number, by in enumerate((0.5, -0.25, 1.0), start=1):
        learned = moved(by)
        changed += learned["fc3.bias"] - MODEL["fc3.bias"]
        heard += said(task(codec, number), learned, remembered)["fc3.bias"]
    owed = torch.from_numpy(remembered.array_records["owed"]["fc3.bias"].numpy())
    assert torch.allclose(heard + owed, changed, atol=1e-5)
    assert float(owed.abs().max()) > 0.1  # or the test would say nothing


def test_what_is_owed_is_paid_when_nothing_changes_any_more() -> None:
    """Two values, one sent in a round: the larger one first, then the one that was left out."""
    remembered, model = RecordDict(), copy_of(MODEL)
    model["fc3.bias"][:2] += torch.tensor([3.0, 2.0])
    one = 1 / 61_706
    first = said(task("top-k", 1, top_k=one), model, remembered)
    second = said(task("top-k", 2, top_k=one), copy_of(MODEL), remembered)
    third = said(task("top-k", 3, top_k=one), copy_of(MODEL), remembered)
    assert first["fc3.bias"][:2].tolist() == pytest.approx([3.0, 0.0])
    assert second["fc3.bias"][:2].tolist() == pytest.approx([0.0, 2.0])
    assert total(third) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "later",
    [{"run": "another"}, {"shard": 1}, {"round_number": 1}],
    ids=["another run", "another shard", "the same round"],
)
def test_a_debt_of_another_run_or_shard_or_of_a_round_to_come_is_none(later: dict[str, Any]) -> None:
    remembered = RecordDict()
    said(task("sign", 1), moved(0.5), remembered)
    shard = later.pop("shard", 0)
    asked = task("sign", **({"round_number": 2} | later))
    assert all(bool((value == 0).all()) for value in said(asked, copy_of(MODEL), remembered, shard).values())


def test_what_is_not_finite_is_said_before_it_is_sent() -> None:
    remembered = RecordDict()
    with pytest.raises(WireError, match="there are values that are not finite"):
        outgoing(task("sign"), moved(float("nan")), 0, remembered)
    assert not remembered.array_records


def copy_of(state: State) -> State:
    return {name: value.clone() for name, value in state.items()}
