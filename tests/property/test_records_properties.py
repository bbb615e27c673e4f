"""Rule: weights are the same bits in a record, and records that are no task are refused with a WireError."""

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from common.arrays import to_ndarray, to_record, to_state
from common.errors import WireError
from common.layers import load
from common.records import error_reply, read_task, task_config
from tests.scripted_grid import task_message, toy_state

STATES = st.dictionaries(
    st.text(min_size=1, max_size=10),
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)),
    max_size=4,
)
CONFIG = dict(task_config(load(), "run", tuple("ab"))) | {"server-round": 3}
SCALARS = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=40), st.lists(st.integers(), max_size=3)
)


@given(arrays=STATES)
def test_weights_are_the_same_bits_in_a_record(arrays: dict[str, npt.NDArray[np.float32]]) -> None:
    back = to_state(to_record({name: torch.from_numpy(value.copy()) for name, value in arrays.items()}))
    assert list(back) == list(arrays)
    for name, value in arrays.items():
        assert back[name].dtype == torch.float32
        assert tuple(back[name].shape) == value.shape
        assert back[name].numpy().tobytes() == value.tobytes()


def test_a_task_is_read_as_it_was_written() -> None:
    settings_ = load()
    content = RecordDict({"arrays": to_record(toy_state(1.5)), "config": ConfigRecord(dict(CONFIG))})
    task = read_task(content)
    assert (task.round_number, task.shard_digests) == (3, ("a", "b"))
    assert torch.equal(task.state["bias"], toy_state(1.5)["bias"])
    assert (task.settings.seed, task.settings.model) == (settings_.run.seed, settings_.model)
    assert (task.settings.data, task.settings.training) == (settings_.data, settings_.training)


@settings(max_examples=300)
@given(key=st.sampled_from(sorted(CONFIG)), value=SCALARS | st.none())
def test_a_task_with_one_bad_value_is_read_or_refused(key: str, value: Any) -> None:
    changed = {k: v for k, v in (CONFIG | {key: value}).items() if v is not None}
    content = RecordDict({"arrays": to_record(toy_state()), "config": ConfigRecord(changed)})
    try:
        task = read_task(content)
    except WireError:
        return
    assert task.settings.training == load().training


@given(
    content=st.dictionaries(
        st.sampled_from(["arrays", "config", "metrics"]),
        st.sampled_from([to_record(toy_state()), ConfigRecord({}), MetricRecord({"x": 1}), ArrayRecord()]),
    )
)
def test_records_that_are_no_task_are_refused(content: dict[str, Any]) -> None:
    try:
        read_task(RecordDict(content))
    except WireError as error:
        found = str(error)
    assert found.startswith("the task lacks ")


@settings(max_examples=500)
@given(
    data=st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: b"\x93NUMPY\x01\x00" + tail),
    shape=hnp.array_shapes(min_dims=0, max_dims=3),
    dtype=st.sampled_from(["float32", "int64", "object", "", "x" * 99]),
)
def test_bytes_that_are_no_array_are_refused(data: bytes, shape: tuple[int, ...], dtype: str) -> None:
    try:
        found = to_ndarray("x", Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data))
    except WireError:
        return
    assert (found.shape, str(found.dtype)) == (shape, dtype)


@given(place=st.integers(0, 127), byte=st.integers(0, 255), cut=st.integers(0, 30))
def test_an_array_whose_header_is_edited_is_as_claimed_or_refused(place: int, byte: int, cut: int) -> None:
    data = bytearray(Array(np.ones(4, np.float32)).data)
    data[place] = byte
    array = Array(dtype="float32", shape=(4,), stype="numpy.ndarray", data=bytes(data[: len(data) - cut]))
    try:
        found = to_ndarray("x", array)
    except WireError:
        return
    assert (found.shape, str(found.dtype)) == ((4,), "float32")


@given(reason=st.text(max_size=2000))
def test_an_error_reply_is_one_short_line(reason: str) -> None:
    said = error_reply(task_message(), reason).error.reason or ""
    assert len(said) <= 500
    assert len(said.splitlines()) <= 1
