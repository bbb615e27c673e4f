"""Rule: weights in one vector are the weights, tensor by tensor: to Flower, to a digest and to an average."""

import pickle
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pytest
import torch
from flwr import app as flower
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flowers
from hypothesis import given
from hypothesis import strategies as st

from common import flat
from common.arrays import to_record, to_state
from common.models import State, weights_sha256
from server import averaging
from server.grids import num_bytes
from tests.scripted_grid import task_message

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
STATES = st.dictionaries(st.text(min_size=1, max_size=10), hnp.arrays(np.float32, SHAPES), min_size=1, max_size=5)
Arrays = dict[str, npt.NDArray[np.float32]]


def flat_record(arrays: Arrays) -> flat.ArrayRecord:
    record = to_record({name: torch.from_numpy(value.copy()) for name, value in arrays.items()})
    assert isinstance(record, flat.ArrayRecord)
    return record


def flowers_record(arrays: Arrays) -> flower.ArrayRecord:
    return flower.ArrayRecord({name: flower.Array(value) for name, value in arrays.items()})


@given(arrays=STATES)
def test_to_flower_it_is_the_record_of_the_same_arrays(arrays: Arrays) -> None:
    ours, theirs = flat_record(arrays), flowers_record(arrays)
    assert ours == theirs
    assert theirs == dict(ours)
    assert (len(ours), list(ours), list(ours.keys()), list(ours.values()), dict(ours.items())) == (
        len(theirs), list(theirs), list(theirs.keys()), list(theirs.values()), dict(theirs.items()),
    )  # fmt: skip
    assert ours.deflate() == theirs.deflate()  # what Flower's SuperLink carries
    assert ours.count_bytes() == theirs.count_bytes()
    assert pickle.loads(pickle.dumps(ours)) == ours.copy() == theirs  # how Ray carries it
    assert num_bytes(_message(ours, MetricRecord({}))) == sum(len(array.data) for array in theirs.values())


def test_its_weights_cannot_be_written_to() -> None:
    """So that what is digested late is what came."""
    with pytest.raises(ValueError, match="read-only"):
        flat_record({"a": np.ones(1, np.float32)}).vector[0] = 2.0


@pytest.mark.parametrize("number", [flat.MAX_REMEMBERED, flat.MAX_REMEMBERED + 1])
def test_of_many_arrays_the_places_are_right_and_not_remembered(number: int) -> None:
    form = tuple((f"{number} {place}", (2,)) for place in range(number))
    kept = flat._bounds_again.cache_info().misses
    parts = list(flat.ArrayRecord(form, np.arange(2 * number, dtype=np.float32)).parts())
    assert [(name, values.tolist()) for name, values in parts] == [
        (name, [2.0 * place, 2.0 * place + 1]) for place, (name, _) in enumerate(form)
    ]
    assert flat._bounds_again.cache_info().misses - kept == (number <= flat.MAX_REMEMBERED)


@given(arrays=STATES, data=st.data())
def test_arrays_can_be_taken_out_one_by_one(arrays: Arrays, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(arrays)))
    record = flat_record(arrays)
    assert np.array_equal(record.pop(name).numpy(), arrays[name], equal_nan=True)
    rest = {other: value for other, value in arrays.items() if other != name}
    assert (name in record, record, len(record.vector)) == (
        False, flowers_record(rest), sum(value.size for value in rest.values())
    )  # fmt: skip
    with pytest.raises(KeyError):
        del record[name]
    with pytest.raises(TypeError, match="cannot be set: the weights of this record are one vector"):
        record[name] = flower.Array(arrays[name])
    record.clear()
    assert (dict(record), record.vector.size, to_state(record)) == ({}, 0, {})


@given(arrays=st.dictionaries(st.text(), hnp.arrays(np.float32, hnp.array_shapes(min_dims=0)), min_size=1, max_size=4))
def test_its_digest_is_that_of_the_tensors(arrays: Arrays) -> None:
    state: State = {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
    assert flat_record(arrays).sha256 == weights_sha256(state)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # sums of the largest numbers
@pytest.mark.parametrize("theirs", [flowers.FedAvg(), flowers.FedProx(proximal_mu=1.0)])
@given(data=st.data())
def test_the_average_is_flowers_to_the_bit(theirs: Any, data: st.DataObject) -> None:
    assert type(theirs) in averaging.PLAIN
    shapes = data.draw(st.dictionaries(st.text(min_size=1, max_size=5), SHAPES, min_size=1, max_size=4))
    counts = data.draw(st.lists(st.integers(1, 2**40), min_size=1, max_size=5))
    updates = [{n: data.draw(hnp.arrays(np.float32, shape)) for n, shape in shapes.items()} for _ in counts]
    metrics = [MetricRecord({"num-examples": count, "train-loss": 1.0}) for count in counts]
    mine = averaging.mean(list(zip(map(flat_record, updates), counts, strict=True)))
    other, _ = theirs.aggregate_train(1, list(map(_message, map(flowers_record, updates), metrics)))
    for name, value in to_state(mine).items():
        assert np.array_equal(value.numpy(), other[name].numpy(), equal_nan=True)
        assert np.array_equal(np.signbit(value.numpy()), np.signbit(other[name].numpy())) or value.isnan().any()


def _message(arrays: flower.ArrayRecord, metrics: MetricRecord) -> Message:
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=task_message())
