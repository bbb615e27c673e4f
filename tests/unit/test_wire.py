"""Rule: what travels on the link comes out as it went in, and what lies becomes one node's error reply."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from common import fleet_pb2 as pb
from common.errors import WireError
from common.records import error_reply
from common.wire import (
    MAX_NAME,
    MAX_TENSORS,
    from_task,
    from_update,
    from_values,
    model_digest,
    model_of,
    pack,
    to_task,
    to_update,
    to_values,
    unpack,
)
from server.incoming import Origin
from server.updates.screening import Rejected, Screen
from tests.bad_replies import HONEST_VALUES, OFFENDER, TABLE, TOO_MUCH
from tests.scripted_grid import task_message, toy_state, update_of

SCREEN = Screen([1000] * 4, max_own_examples=500, max_norm_ratio=5.0)
Change = Callable[[pb.Update], object]


def honest_update() -> pb.Update:
    reply = Message(update_of(toy_state(2.0), OFFENDER.shard), reply_to=task_message(OFFENDER))
    return to_update(reply, "run/1/node-3")


def reason_for(update: pb.Update) -> str:
    """Why the server sets an update aside that came over the link; '' if it does not."""
    message = task_message(OFFENDER)
    reply = from_update(pb.Update.FromString(update.SerializeToString()), message)
    try:
        SCREEN.check(reply, OFFENDER, Origin.of(toy_state()))
    except Rejected as reason:
        return str(reason)
    return ""


def tensor(update: pb.Update, name: str) -> pb.Tensor:
    return next(tensor for tensor in update.weights.layout if tensor.name == name)


def bias(array: np.ndarray[Any, Any], dtype: str | None = None) -> Change:
    """Another bias (it is last), with a layout that says so."""

    def change(update: pb.Update) -> None:
        place = tensor(update, "bias")
        del place.shape[:]
        place.shape.extend(array.shape)
        place.dtype = dtype or str(array.dtype)
        update.weights.buffer = update.weights.buffer[:-40] + array.tobytes()

    return change


def shape(*numbers: int) -> Change:
    """A layout that lies about the shape of the bias."""

    def change(update: pb.Update) -> None:
        del tensor(update, "bias").shape[:]
        tensor(update, "bias").shape.extend(numbers)

    return change


def metric(key: str, **value: Any) -> Change:
    return lambda update: update.metrics[key].CopyFrom(pb.Value(**value))


def values(value: float) -> Change:
    def change(update: pb.Update) -> None:
        update.weights.buffer = np.full(16, value, np.float32).tobytes()

    return change


def both(*changes: Change) -> Change:
    def change(update: pb.Update) -> None:
        for each in changes:
            each(update)

    return change


def layout(*names: str) -> Change:
    def change(update: pb.Update) -> None:
        update.weights.CopyFrom(pb.Weights(codec="raw"))
        for name in names:
            update.weights.layout.add(name=name, dtype="float32", shape=[10] if name != "weight" else [2, 3])
            update.weights.buffer += np.full(10 if name != "weight" else 6, 2.0, np.float32).tobytes()

    return change


def setting(path: str, value: Any) -> Change:
    def change(update: pb.Update) -> None:
        target: Any = update
        *parents, last = path.split(".")
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, last, value)

    return change


TWOS = np.full(10, 2.0, np.float32)
UNREADABLE = "the update cannot be read: "
# The rows of tests/bad_replies.py by number, each in the nearest form that the protocol allows.
NEAREST: dict[int, tuple[Change, str]] = {
    1: (setting("error", "out of\nmemory"), "the node could not train: out of memory"),
    2: (bias(np.where(np.arange(10) == 4, math.nan, TWOS)), "bias holds values that are not finite"),
    3: (bias(np.where(np.arange(10) == 4, math.inf, TWOS)), "bias holds values that are not finite"),
    4: (values(math.nan), "weight holds values that are not finite"),
    5: (values(1e30), "4e+30 away from the global model, at most 1e+03 is accepted"),
    6: (values(TOO_MUCH), ""),  # sound in itself: the comparison with its round answers for it
    7: (bias(TWOS[:1]), "bias has shape (1,), expected (10,)"),
    8: (bias(TWOS[:7]), "bias has shape (7,), expected (10,)"),
    9: (bias(np.tile(TWOS, (10, 1))), "bias has shape (10, 10), expected (10,)"),
    10: (bias(TWOS.astype(np.float64)), "bias has dtype 'float64', expected 'float32'"),
    11: (bias(TWOS.astype(np.int64)), "bias has dtype 'int64', expected 'float32'"),
    12: (bias(TWOS.astype(np.complex64)), UNREADABLE + "bias claims dtype 'complex64' with 1 dimensions"),
    13: (bias(TWOS.astype("<U3")), UNREADABLE + "bias claims dtype '<U3' with 1 dimensions"),
    14: (layout("weight"), "tensors 1 (weight), expected 2 (weight, bias)"),
    15: (layout("weight", "bias", "extra"), "tensors 3 (weight, bias, extra), expected 2 (weight, bias)"),
    16: (lambda update: update.ClearField("weights"), "the reply holds 0 array records and 1 metric records"),
    17: (layout("weight", "bias", "weight", "bias"), UNREADABLE + "the layout has a bad or repeated name 'weight'"),
    18: (lambda update: update.ClearField("metrics"), "metrics 0 (), expected 5"),
    19: (metric("speed", real=1.5), "metrics 6 ("),
    20: (lambda update: update.metrics.pop("num-examples"), "metrics 4 ("),
    21: (metric("num-examples", integer=0), "0 examples, expected 1 to 1000"),
    22: (metric("num-examples", integer=-400), "-400 examples, expected 1 to 1000"),
    23: (both(values(TOO_MUCH), metric("num-examples", integer=10**12)), "1000000000000 examples, expected 1 to 1000"),
    24: (metric("num-examples", real=math.nan), "num-examples is a float, expected int"),
    25: (metric("num-examples", real=math.inf), "num-examples is a float, expected int"),
    26: (metric("num-examples", texts=pb.Texts(items=["100"])), UNREADABLE),
    27: (metric("train-loss", texts=pb.Texts(items=["0.5", "0.5"])), UNREADABLE),
    28: (metric("train-loss", real=math.nan), "train-loss is nan, expected a finite number"),
    29: (setting("weights.buffer", b"\x93garbage"), UNREADABLE + "the layout claims more than the 8 bytes that came"),
    30: (bias(np.arange(10), dtype="object"), UNREADABLE + "bias claims dtype 'object' with 1 dimensions"),
    31: (shape(1_000_000, 1_000_000), UNREADABLE + "the layout claims more than the 64 bytes that came, at bias"),
    32: (
        setting("weights.codec", "pickle"),
        UNREADABLE + "unknown codec 'pickle', expected 'raw' or a codec's name",
    ),
    33: (
        both(values(HONEST_VALUES[1]), metric("shard", integer=1)),
        "the update is for shard 1, the node holds shard 3",
    ),
}


def test_an_honest_update_passes() -> None:
    assert reason_for(honest_update()) == ""


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_each_bad_reply_in_its_nearest_form_on_the_link(row: Any) -> None:
    change, reason = NEAREST[row.number]
    update = honest_update()
    change(update)
    found = reason_for(update)
    assert found.startswith(reason)
    assert found or row.number == 6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shape(9), "the layout claims 60 bytes, 64 came"),
        (shape(11), "the layout claims more than the 64 bytes that came, at bias"),
        (shape(2**32 - 1, *[2**32 - 1] * 7), "the layout claims more than the 64 bytes that came, at bias"),
        (shape(0, 2**31, 2**31), "bias claims the shape (0, 2147483648, 2147483648)"),
        (shape(*[1] * 9), "bias claims dtype 'float32' with 9 dimensions"),
        (setting("weights.buffer", b""), "the layout claims more than the 0 bytes that came, at weight"),
        (lambda update: setattr(tensor(update, "bias"), "name", ""), "the layout has a bad or repeated name ''"),
        (
            lambda update: setattr(tensor(update, "bias"), "name", "b" * (MAX_NAME + 1)),
            f"the layout has a bad or repeated name '{'b' * 57}",
        ),
        (
            lambda update: update.weights.layout.extend([pb.Tensor()] * MAX_TENSORS),
            f"the layout lists {MAX_TENSORS + 2} tensors, at most {MAX_TENSORS} are allowed",
        ),
        (lambda update: [update.metrics[str(n)] for n in range(64)], "69 values came, at most 64 with short names"),
        (metric("k" * 257, real=1.0), "6 values came, at most 64 with short names are allowed"),
        (lambda update: update.metrics["speed"].Clear(), "speed has no value"),
        (metric("speed", text="x" * 70_000), "speed is a text of 70000 characters, at most 65536 are allowed"),
    ],
)
def test_other_lies_are_told_as_well(change: Change, reason: str) -> None:
    update = honest_update()
    change(update)
    assert reason_for(update).startswith(UNREADABLE + reason)


def test_a_layout_of_another_order_is_read_by_its_names() -> None:
    update = honest_update()
    place = pb.Tensor()
    place.CopyFrom(update.weights.layout[0])
    del update.weights.layout[0]
    update.weights.layout.append(place)
    assert reason_for(update) == ""


def test_a_layout_that_was_seen_before_is_held_against_each_buffer() -> None:
    layout = [pb.Tensor(name="a", dtype="float32", shape=[2])]
    for buffer, values in ((b"\0" * 8, [0.0, 0.0]), (b"\0\0\x80\x3f" * 2, [1.0, 1.0])):
        assert unpack(pb.Weights(codec="raw", layout=layout, buffer=buffer))["a"].numpy().tolist() == values
    with pytest.raises(WireError, match="the layout claims 8 bytes, 12 came"):
        unpack(pb.Weights(codec="raw", layout=layout, buffer=b"\0" * 12))


def test_which_model_a_task_is_about_is_worked_out_where_the_server_does_not_say() -> None:
    weights = pb.Weights(buffer=b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert model_of(pb.Task(weights=weights)).hex() == digest
    assert model_of(pb.Task(weights=weights, model=b"too short")).hex() == digest
    assert model_of(pb.Task(weights=weights, model=bytes(32))) == bytes(32)


def test_a_server_that_is_started_again_names_a_model_as_before() -> None:
    named = model_digest(pb.Weights(buffer=b"abc"))  # XXH3, 128 bits, seed 0, as xxhsum prints it
    assert named.hex() == "0" * 32 + "06b05ab6733a618578af5f94892f3950"
    assert model_of(pb.Task(weights=pb.Weights(buffer=b"abc"), model=named)) == named


def test_weights_are_one_buffer_and_their_layout() -> None:
    record = ArrayRecord({"b": Array(np.array([[1.0, 2.0]], np.float32)), "a": Array(np.array([3], np.int64))})
    weights = pack(record)
    assert weights.codec == "raw"
    assert [(t.name, t.dtype, list(t.shape)) for t in weights.layout] == [("b", "float32", [1, 2]), ("a", "int64", [1])]
    assert weights.buffer.hex() == "0000803f" + "00000040" + "0300000000000000"
    back = unpack(weights)
    assert list(back) == ["b", "a"]
    assert back["b"].numpy().tolist() == [[1.0, 2.0]]


def test_a_single_number_stays_one() -> None:
    back = unpack(pack(ArrayRecord({"steps": Array(np.array(7, np.int64))})))
    assert back["steps"].shape == ()
    assert back["steps"].numpy() == 7


def test_a_task_comes_out_as_it_went_in() -> None:
    message = task_message(OFFENDER, toy_state(1.5))
    config: dict[str, Any] = {
        "run": "r",
        "server-round": 3,
        "rate": 0.5,
        "flag": True,
        "shard-digests": ["a", "b"],
        "none": "",
    }
    message.content["config"] = ConfigRecord(dict(config))
    task = pb.Task.FromString(to_task(message).SerializeToString())
    back = from_task(task, node_id=1)
    assert back.metadata.message_type == "train"
    assert dict(back.content.config_records["config"]) == config
    assert back.content.array_records["arrays"]["bias"].numpy().tolist() == [1.5] * 10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda task: task.ClearField("weights"), "unreadable task: unknown codec ''"),
        (lambda task: task.ClearField("type"), "unreadable task: "),
        (lambda task: setattr(task, "type", "dance"), "unreadable task: "),
        (lambda task: task.config["x"].Clear(), "unreadable task: x has no value"),
    ],
)
def test_a_task_that_lies_is_refused(change: Callable[[pb.Task], object], reason: str) -> None:
    task = to_task(task_message())
    change(task)
    with pytest.raises(WireError) as error:
        from_task(task, node_id=1)
    assert str(error.value).startswith(reason)


def test_an_error_travels_as_its_reason() -> None:
    update = to_update(error_reply(task_message(), "out of\nmemory " + "x" * 600), "run/1/a")
    assert update.task == "run/1/a"
    assert update.error == "out of memory " + "x" * 486  # one line, 500 characters
    assert not update.HasField("weights")


def test_the_reply_that_is_read_is_the_reply_that_was_sent() -> None:
    update, message = honest_update(), task_message(OFFENDER)
    reply = from_update(update, message)
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    sent = Message(update_of(toy_state(2.0), OFFENDER.shard), reply_to=task_message(OFFENDER)).content
    assert dict(reply.content.metric_records["metrics"]) == dict(sent.metric_records["metrics"])
    assert isinstance(reply.content, RecordDict)


@pytest.mark.parametrize("value", [None, [1, "a"], [1.5], {"a": 1}, b"bytes"])
def test_a_value_without_a_form_on_the_link_is_refused(value: object) -> None:
    with pytest.raises(WireError, match=f"a {type(value).__name__} cannot travel on the link"):
        to_values({"x": value})


def test_values_keep_their_kind() -> None:
    sent = {"flag": True, "integer": -(2**63), "real": 1.0, "text": "", "texts": ["a"], "none": []}
    received = from_values(to_values(sent))
    assert received == sent
    assert [type(value) for value in received.values()] == [type(value) for value in sent.values()]
