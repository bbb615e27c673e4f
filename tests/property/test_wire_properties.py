"""Rule: any array travels bit for bit, and no bytes from the link do more than end as one node's error."""

import math
import tracemalloc
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import Array, ArrayRecord, Message
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from common import fleet_pb2 as pb
from common.errors import WireError
from common.wire import DTYPES, from_task, from_update, from_values, pack, to_task, to_update, to_values, unpack
from server.incoming import Origin
from server.updates.screening import Rejected, Screen
from tests.scripted_grid import NODES, task_message, toy_state, update_of

Arrays = dict[str, npt.NDArray[Any]]
TEXT = st.text(max_size=20)
VALUES = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT, st.lists(TEXT, max_size=3)
)
ARRAYS: st.SearchStrategy[Arrays] = st.dictionaries(
    st.text(min_size=1, max_size=20),
    st.sampled_from(sorted(DTYPES)).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
    ),
    max_size=5,
)
MESSAGE = task_message(NODES[3])
HONEST_UPDATE = to_update(Message(update_of(toy_state(2.0), 3), reply_to=MESSAGE), "run/1/node-3").SerializeToString()
HONEST_TASK = to_task(MESSAGE).SerializeToString()
SCREEN = Screen([1000] * 4, max_own_examples=500, max_norm_ratio=5.0)
# Where, what to put there, how many bytes to take away: a few of these make a message hostile.
EDITS = st.lists(st.tuples(st.integers(0, 999), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=3)


def edited(honest: bytes, edits: list[tuple[int, bytes, int]]) -> bytes:
    for place, new, taken in edits:
        at = place * len(honest) // 999
        honest = honest[:at] + new + honest[at + taken :]
    return honest


def outcome_of_update(raw: bytes) -> str:
    """What becomes of the bytes of an update; whatever else is raised fails the test."""
    try:
        update = pb.Update.FromString(raw)
    except DecodeError:
        return "no message"
    reply = from_update(update, MESSAGE)
    try:
        SCREEN.check(reply, NODES[3], Origin.of(toy_state()))
    except Rejected:
        return "error reply" if reply.has_error() else "rejected"
    return "accepted"


def outcome_of_task(raw: bytes) -> str:
    try:
        from_task(pb.Task.FromString(raw), node_id=1)
    except DecodeError:
        return "no message"
    except WireError:
        return "refused"
    return "read"


@given(arrays=ARRAYS)
def test_arrays_travel_bit_for_bit(arrays: Arrays) -> None:
    weights = pb.Weights.FromString(
        pack(ArrayRecord({name: Array(value) for name, value in arrays.items()})).SerializeToString()
    )
    back = unpack(weights)
    assert list(back) == list(arrays)
    for name, value in arrays.items():
        found = back[name].numpy()
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tobytes() == value.tobytes()


@given(values=st.dictionaries(st.text(max_size=20), VALUES, max_size=5))
def test_values_travel_with_their_kind(values: dict[str, Any]) -> None:
    sent = pb.Update(metrics=to_values(values)).SerializeToString()
    received = from_values(pb.Update.FromString(sent).metrics)
    assert received == values
    assert {key: type(value) for key, value in received.items()} == {key: type(value) for key, value in values.items()}


@settings(max_examples=1500)
@given(edits=EDITS)
def test_an_edited_update_ends_in_one_of_four_ways(edits: list[tuple[int, bytes, int]]) -> None:
    assert outcome_of_update(edited(HONEST_UPDATE, edits)) in {"no message", "error reply", "rejected", "accepted"}


@settings(max_examples=1000)
@given(edits=EDITS)
def test_an_edited_task_ends_in_one_of_three_ways(edits: list[tuple[int, bytes, int]]) -> None:
    assert outcome_of_task(edited(HONEST_TASK, edits)) in {"no message", "refused", "read"}


def test_honest_messages_come_through() -> None:
    assert (outcome_of_update(HONEST_UPDATE), outcome_of_task(HONEST_TASK)) == ("accepted", "read")


TENSORS = st.builds(
    pb.Tensor,
    name=st.sampled_from(["weight", "bias", "", "x"]),
    dtype=st.sampled_from(["float32", "int64", "object", "O", "V8", "float32,int8", "M8", ">f4", "", "bool"]),
    shape=st.lists(st.integers(0, 4) | st.sampled_from([10, 2**16, 2**31, 2**32 - 1]), max_size=10),
)


@settings(max_examples=300)
@given(
    codec=st.sampled_from(["raw", "raw", "raw", "pickle", ""]),
    layout=st.lists(TENSORS, max_size=4),
    buffer=st.binary(max_size=64) | st.integers(0, 80).map(bytes),
)
def test_a_layout_that_lies_is_told_within_twice_the_memory(codec: str, layout: list[pb.Tensor], buffer: bytes) -> None:
    weights = pb.Weights(codec=codec, layout=layout, buffer=buffer)
    try:
        record = unpack(weights)
    except WireError:
        return
    assert sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in record.values()) == len(buffer)


@pytest.mark.parametrize(
    "shapes",
    [[(2**20,)], [(2**32 - 1,) * 8], [(2**18,), (2**32 - 1, 2**32 - 1)], [(2**18,)], [(0, 2**32 - 1)]],
    ids=str,
)
def test_reading_takes_a_few_times_the_memory_of_what_came(shapes: list[tuple[int, ...]]) -> None:
    layout = [pb.Tensor(name=str(n), dtype="float32", shape=shape) for n, shape in enumerate(shapes)]
    update = pb.Update(task="t", weights=pb.Weights(codec="raw", layout=layout, buffer=bytes(2**20)))
    tracemalloc.start()
    try:
        from_update(update, MESSAGE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20
