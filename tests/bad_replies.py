"""The bad replies that a node can send, as Flower records, and the reason that each is rejected with.

The 33 of ``TABLE`` are counted against Flower's own strategies, which trust their replies: there, 19 end the run
with an exception and 9 poison the model (FedAvg, flwr 1.41). The ten of ``TEN_MORE`` are those of our own link and
screen. What only shows on a link with several messages is in tests/integration/test_fleet_tasks.py.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from common import fleet_pb2 as pb
from common.records import error_reply, evaluation_record
from common.wire import from_update, to_update
from tests.scripted_grid import NODES, Content, toy_state, update_of

OFFENDER = NODES[3]
HONEST_VALUES = (1.0, 2.0, 3.0)  # of the weights that nodes 0, 1 and 2 send, from a model of zeros
HONEST_EXAMPLES = (100, 100, 200)
AVERAGE = 2.25  # (1*100 + 2*100 + 3*200) / 400
TOO_MUCH = -20.0  # the offender's own honest update would be 2: its sign flipped, times 10


@dataclass(frozen=True)
class BadReply:
    """One row of the table."""

    number: int
    name: str
    make: Callable[[Message], Content]
    reason: str  # what the ledger and the node are told, or its beginning

    def __str__(self) -> str:
        return f"{self.number}-{self.name.replace(' ', '-')}"


def with_values(value: float, at: tuple[int, ...] | None = None) -> Callable[[Message], RecordDict]:
    """Well formed but for its values: all of them, or the one of the bias at ``at``."""
    state = toy_state(value if at is None else 2.0)
    if at is not None:
        state["bias"][at] = value
    return lambda _: update_of(state, OFFENDER.shard)


def with_bias(array: Array | np.ndarray[Any, Any]) -> Callable[[Message], RecordDict]:
    """Another array in the place of the bias."""
    return with_arrays(lambda arrays: arrays | {"bias": array if isinstance(array, Array) else Array(array)})


def with_arrays(change: Callable[[dict[str, Array]], dict[str, Array]]) -> Callable[[Message], RecordDict]:
    """Other arrays."""

    def make(_: Message) -> RecordDict:
        content = update_of(toy_state(2.0), OFFENDER.shard)
        content["arrays"] = ArrayRecord(change(dict(content.array_records["arrays"])))
        return content

    return make


def with_metrics(**changes: Any) -> Callable[[Message], RecordDict]:
    """Other metrics, ``_`` for ``-``; None takes one away."""

    def make(_: Message) -> RecordDict:
        content = update_of(toy_state(2.0), OFFENDER.shard)
        values = dict(content.metric_records["metrics"]) | {k.replace("_", "-"): v for k, v in changes.items()}
        content["metrics"] = MetricRecord({key: value for key, value in values.items() if value is not None})
        return content

    return make


def with_content(change: Callable[[RecordDict], object]) -> Callable[[Message], RecordDict]:
    """Other records."""

    def make(_: Message) -> RecordDict:
        content = update_of(toy_state(2.0), OFFENDER.shard)
        change(content)
        return content

    return make


def on_the_link(change: Callable[[pb.Update], object]) -> Callable[[Message], Message]:
    """What the server reads where the link's message of an honest update was changed."""

    def make(message: Message) -> Message:
        update = to_update(Message(update_of(toy_state(2.0), OFFENDER.shard), reply_to=message), "run/1/node-3")
        change(update)
        return from_update(update, message)

    return make


def truncated(update: pb.Update) -> None:
    update.weights.buffer = update.weights.buffer[:32]  # of 64: half an update


def swapped(update: pb.Update) -> None:
    first, second = update.weights.layout
    first.name, second.name = second.name, first.name  # the bytes are all there, under each other's names


def as_integers(update: pb.Update) -> None:
    update.weights.layout[1].dtype = "int32"  # as many bytes as float32


def claiming(data: bytes, shape: tuple[int, ...] = (10,), stype: str = "numpy.ndarray") -> Array:
    """An array that claims to be a float32 one of ``shape``."""
    return Array(dtype="float32", shape=shape, stype=stype, data=data)


def npy(array: np.ndarray[Any, Any], allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def header_of_4_terabytes() -> bytes:
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + bytes(40)


def flipped_with_1e12_examples(message: Message) -> RecordDict:
    content = with_values(TOO_MUCH)(message)
    content.metric_records["metrics"]["num-examples"] = 10**12
    return content


ONES = np.full(10, 2.0, np.float32)
DOES_NOT_HOLD = "bias does not hold the 'float32' array of shape (10,) it claims"
RECORDS = "the reply holds {} array records and {} metric records, expected one of each and nothing else"
METRICS = "expected 5 (num-examples, train-loss, shard, fit-seconds, threads)"

TABLE = (
    BadReply(1, "error reply", lambda m: error_reply(m, "out of memory"), "the node could not train: out of memory"),
    BadReply(2, "one NaN", with_values(math.nan, at=(4,)), "bias holds values that are not finite"),
    BadReply(3, "one +Inf", with_values(math.inf, at=(4,)), "bias holds values that are not finite"),
    BadReply(4, "all NaN", with_values(math.nan), "weight holds values that are not finite"),
    BadReply(5, "values of 1e30", with_values(1e30), "4e+30 away from the global model, at most 1e+03 is accepted"),
    BadReply(
        6,
        "sign flipped times 10",
        with_values(TOO_MUCH),
        # sqrt(16) * 20; 5 * 4 * 2
        "80 away from the global model, at most 40 is accepted: 5 x the cohort's median (strategy.max_norm_ratio)",
    ),
    BadReply(7, "broadcasting shape", with_bias(ONES[:1]), "bias has shape (1,), expected (10,)"),
    BadReply(8, "wrong shape", with_bias(ONES[:7]), "bias has shape (7,), expected (10,)"),
    BadReply(9, "larger shape", with_bias(np.tile(ONES, (10, 1))), "bias has shape (10, 10), expected (10,)"),
    BadReply(10, "float64", with_bias(ONES.astype(np.float64)), "bias has dtype 'float64', expected 'float32'"),
    BadReply(11, "int64", with_bias(ONES.astype(np.int64)), "bias has dtype 'int64', expected 'float32'"),
    BadReply(12, "complex", with_bias(ONES.astype(np.complex64)), "bias has dtype 'complex64', expected 'float32'"),
    BadReply(13, "strings", with_bias(ONES.astype("<U3")), "bias has dtype '<U3', expected 'float32'"),
    BadReply(
        14,
        "a tensor missing",
        with_arrays(lambda arrays: {"weight": arrays["weight"]}),
        "tensors 1 (weight), expected 2 (weight, bias)",
    ),
    BadReply(
        15,
        "a tensor too many",
        with_arrays(lambda arrays: arrays | {"extra": arrays["bias"]}),
        "tensors 3 (weight, bias, extra), expected 2 (weight, bias)",
    ),
    BadReply(16, "no tensors", with_arrays(lambda _: {}), "tensors 0 (), expected 2 (weight, bias)"),
    BadReply(
        17,
        "two array records",
        with_content(lambda content: content.update(more=content["arrays"])),
        RECORDS.format(2, 1),
    ),
    BadReply(18, "no metrics", with_content(lambda content: content.pop("metrics")), RECORDS.format(1, 0)),
    BadReply(
        19,
        "a metric too many",
        with_metrics(speed=1.5),
        f"metrics 6 (num-examples, train-loss, shard, fit-seconds, threads, speed), {METRICS}",
    ),
    BadReply(
        20,
        "example count missing",
        with_metrics(num_examples=None),
        f"metrics 4 (train-loss, shard, fit-seconds, threads), {METRICS}",
    ),
    BadReply(21, "example count 0", with_metrics(num_examples=0), "0 examples, expected 1 to 1000"),
    BadReply(22, "example count negative", with_metrics(num_examples=-400), "-400 examples, expected 1 to 1000"),
    BadReply(23, "example count 1e12", flipped_with_1e12_examples, "1000000000000 examples, expected 1 to 1000"),
    BadReply(24, "example count NaN", with_metrics(num_examples=math.nan), "num-examples is a float, expected int"),
    BadReply(25, "example count Inf", with_metrics(num_examples=math.inf), "num-examples is a float, expected int"),
    BadReply(26, "example count a list", with_metrics(num_examples=[100]), "num-examples is a list, expected int"),
    BadReply(27, "a metric a list", with_metrics(train_loss=[0.5, 0.5]), "train-loss is a list, expected float"),
    BadReply(28, "train loss NaN", with_metrics(train_loss=math.nan), "train-loss is nan, expected a finite number"),
    BadReply(29, "garbage bytes", with_bias(claiming(b"\x93garbage")), DOES_NOT_HOLD),
    BadReply(
        30, "pickled object array", with_bias(claiming(npy(np.array([{}] * 10), allow_pickle=True))), DOES_NOT_HOLD
    ),
    BadReply(31, "header claiming 4 TB", with_bias(claiming(header_of_4_terabytes())), DOES_NOT_HOLD),
    BadReply(
        32,
        "unknown serialisation",
        with_bias(claiming(npy(ONES), stype="cloudpickle")),
        "bias is serialised as 'cloudpickle', expected 'numpy.ndarray'",
    ),
    BadReply(
        33,
        "the update of another node again",
        lambda _: update_of(toy_state(HONEST_VALUES[1]), shard=1),
        "the update is for shard 1, the node holds shard 3",
    ),
)

STALE = BadReply(
    34,
    "its own update of the round before",
    lambda _: update_of(toy_state(3.25), OFFENDER.shard),  # as in round 1 of the test
    "stale: the same update as that of node node-3 in round 1",
)
LOSS = "expected 0 to 10000"
UNREADABLE = "the update cannot be read: "
TEN_MORE = (
    STALE,
    BadReply(
        35,
        "half an update",
        on_the_link(truncated),
        UNREADABLE + "the layout claims more than the 32 bytes that came, at bias",
    ),
    BadReply(36, "a layout that lies", on_the_link(swapped), "weight has shape (10,), expected (2, 3)"),
    BadReply(
        37,
        "a codec that lies",
        on_the_link(lambda update: setattr(update.weights, "codec", "zip")),
        UNREADABLE + "unknown codec 'zip', expected 'raw' or a codec's name",
    ),
    BadReply(38, "a dtype that lies", on_the_link(as_integers), "bias has dtype 'int32', expected 'float32'"),
    BadReply(39, "an evaluation for an update", lambda _: evaluation_record(0.1, 0.99, 100), RECORDS.format(0, 1)),
    BadReply(
        40,
        "the largest finite values",
        with_values(float(np.finfo(np.float32).max)),
        "1.36e+39 away from the global model, at most 1e+03 is accepted",  # sqrt(16) * 3.4e38, no float32 itself
    ),
    BadReply(41, "a negative loss", with_metrics(train_loss=-2.0), f"train-loss is -2, {LOSS}"),
    BadReply(42, "a loss of 1e300", with_metrics(train_loss=1e300), f"train-loss is 1e+300, {LOSS}"),
    BadReply(43, "a count of 401 digits", with_metrics(threads=10**400), "threads is larger than 9223372036854775807"),
)
