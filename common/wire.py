"""Flower records as bytes of the link, and back.

Arrays travel as one buffer with its layout, configuration and metrics as typed values. Everything
that comes in is hostile: bounded before it is read, and never unpickled.
"""

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from common import flat, npy
from common import fleet_pb2 as pb
from common.arrays import codec_of, record_of, to_ndarray
from common.codecs import NAMES, PLAIN
from common.contents import array_records, config_records, metric_records
from common.errors import WireError
from common.records import OWN, UNREADABLE_CODE, error_reply

PROTOCOL_VERSION = 5
JOIN = "/fedge.v1.Fleet/Join"  # the link's one method, as gRPC addresses it
ENROL = "/fedge.v1.Enrolment/Enrol"
MAX_HELLO_BYTES = 16 * 1024  # and the most that an enrolment may hold
MAX_SIGNAL_BYTES = 64 * 1024  # what a message may hold beside weights
MAX_TASK_BYTES = 256 * 1024 * 1024  # the most a node takes from a server
MAX_TENSORS, MAX_DIMENSIONS, MAX_NAME, MAX_TEXT, MAX_VALUES = 4096, 8, 256, 64 * 1024, 64
# A dead peer is noticed by pings within about 7 s; both sides must allow them this often.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
)
_DIGEST_BYTES = 32
Claim = tuple[str, str, tuple[int, ...]]  # what a layout says of a tensor: name, dtype, shape
Place = tuple[str, np.dtype[Any], tuple[int, ...], int]  # the same, checked, and where its bytes begin
DTYPES = frozenset({"float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"})


def model_digest(weights: pb.Weights) -> bytes:
    """Which model a task is about: 32 bytes that follow from the buffer. Nodes compare them, and do not look inside."""
    return xxhash.xxh3_128_digest(weights.buffer).rjust(_DIGEST_BYTES, b"\0")


def model_of(task: pb.Task) -> bytes:
    """The same of a task, as its server names it for all nodes; of one that names none, the SHA-256 of the buffer."""
    return task.model if len(task.model) == _DIGEST_BYTES else hashlib.sha256(task.weights.buffer).digest()


def pack(record: ArrayRecord, weights: pb.Weights | None = None) -> pb.Weights:
    """Arrays as one buffer and its layout; a payload under a codec needs none. Into ``weights``, which are empty."""
    weights = pb.Weights() if weights is None else weights
    if (codec := codec_of(record)) != PLAIN:
        weights.codec, weights.buffer = codec, to_ndarray(codec, record[codec]).tobytes()
        return weights
    weights.codec = "raw"
    if isinstance(record, flat.ArrayRecord):
        for name, shape in record.form:
            weights.layout.add(name=name, dtype="float32", shape=shape)
        weights.buffer = record.vector.tobytes()
        return weights
    arrays = {name: np.asarray(to_ndarray(name, array), order="C") for name, array in record.items()}
    for name, array in arrays.items():
        weights.layout.add(name=name, dtype=array.dtype.name, shape=array.shape)
    weights.buffer = b"".join(arrays.values())  # type: ignore[arg-type]  # buffers, all of them
    return weights


def unpack(weights: pb.Weights) -> ArrayRecord:
    """The arrays in ``weights``, as views of one copy of its buffer.

    Raises:
        WireError: the codec is unknown, or layout and buffer do not fit each other.
    """
    if weights.codec in NAMES and weights.codec != PLAIN:
        if weights.layout:
            raise WireError(f"a {weights.codec} payload comes with a layout of {len(weights.layout)}, expected none")
        return record_of({weights.codec: npy.Array(np.frombuffer(weights.buffer, np.uint8))})
    if weights.codec != "raw":
        raise WireError(f"unknown codec {weights.codec!r:.40}, expected 'raw' or a codec's name")
    if len(weights.layout) > MAX_TENSORS:
        raise WireError(f"the layout lists {len(weights.layout)} tensors, at most {MAX_TENSORS} are allowed")
    layout = tuple((tensor.name, tensor.dtype, tuple(tensor.shape)) for tensor in weights.layout)
    buffer = weights.buffer
    places = (_places_again if len(layout) <= flat.MAX_REMEMBERED else _places)(layout, len(buffer))
    if buffer and all(dtype == np.float32 for _, dtype, _, _ in places):
        form = tuple((name, shape) for name, _, shape, _ in places)
        return flat.ArrayRecord(form, np.frombuffer(buffer, np.float32))
    return record_of(
        {
            name: npy.Array(np.ndarray(math.prod(shape), dtype, buffer, start).reshape(shape))
            for name, dtype, shape, start in places
        }
    )


def _places(layout: tuple[Claim, ...], num_bytes: int) -> list[Place]:
    """Where each tensor of a layout lies in a buffer of so many bytes.

    Raises:
        WireError: they do not fit each other.
    """
    offset, places = 0, dict[str, Place]()
    for name, dtype_name, shape in layout:
        if name in places or not 0 < len(name) <= MAX_NAME:
            raise WireError(f"the layout has a bad or repeated name {name!r:.60}")
        if dtype_name not in DTYPES or len(shape) > MAX_DIMENSIONS:
            raise WireError(f"{name} claims dtype {dtype_name!r:.20} with {len(shape)} dimensions")
        dtype = np.dtype(dtype_name)
        size = math.prod(shape) * dtype.itemsize
        if offset + size > num_bytes:
            raise WireError(f"the layout claims more than the {num_bytes} bytes that came, at {name}")
        if math.prod(side or 1 for side in shape) * dtype.itemsize >= 2**63:  # behind a side of 0
            raise WireError(f"{name} claims the shape {shape!r:.60}")
        places[name] = (name, dtype, shape, offset)
        offset += size
    if offset != num_bytes:
        raise WireError(f"the layout claims {offset} bytes, {num_bytes} came")
    return list(places.values())


_places_again = lru_cache(maxsize=64)(_places)  # all updates of a run have the same


def to_task(message: Message) -> pb.Task:
    """A task without the parts that are one node's own."""
    weights = pack(array_records(message.content)["arrays"])
    config = to_values(config_records(message.content)["config"])
    return pb.Task(weights=weights, config=config, type=message.metadata.message_type)


def own_config(message: Message) -> dict[str, pb.Value]:
    """What ``to_task`` leaves out; protobuf merges it with the rest of the task, bytes behind bytes."""
    return to_values(config_records(message.content).get(OWN, {}))


def shared_parts(message: Message) -> tuple[int, int]:
    """The identities of what ``to_task`` packs: tasks that share these objects need be packed only once."""
    content = message.content
    return id(array_records(content)["arrays"]), id(config_records(content)["config"])


def from_task(task: pb.Task, node_id: int) -> Message:
    """The message that a ClientApp is called with.

    Raises:
        WireError: the task does not hold what it claims.
    """
    try:
        config = ConfigRecord(from_values(task.config))
        return Message(RecordDict({"arrays": unpack(task.weights), "config": config}), node_id, task.type)
    except (TypeError, ValueError) as error:
        raise WireError(f"unreadable task: {error}") from None


def to_update(reply: Message, task: str) -> pb.Update:
    """A ClientApp's reply to the task of that name."""
    if reply.has_error():
        return pb.Update(task=task, error=reply.error.reason)
    if not metric_records(reply.content):
        return pb.Update(task=task, error="the task asks for something that this node does not do")
    update = pb.Update(task=task, metrics=to_values(next(iter(metric_records(reply.content).values()))))
    for arrays in array_records(reply.content).values():  # an evaluation has none
        pack(arrays, update.weights)  # in place: protobuf copies what it is given
        break
    return update


def from_update(update: pb.Update, message: Message) -> Message:
    """The Flower reply to ``message`` that an update holds; one that cannot be read is an error reply."""
    if update.error:
        return error_reply(message, update.error)
    try:
        content = RecordDict({"metrics": MetricRecord(from_values(update.metrics))})
        if update.HasField("weights"):
            content["arrays"] = unpack(update.weights)
        return Message(content, reply_to=message)
    except (TypeError, ValueError) as error:  # a WireError is a ValueError
        return error_reply(message, f"the update cannot be read: {error}", UNREADABLE_CODE)


def to_values(scalars: Mapping[str, Any]) -> dict[str, pb.Value]:
    """Plain values of a config or metric record as messages."""
    return {key: _to_value(value) for key, value in scalars.items()}


def from_values(values: Mapping[str, pb.Value]) -> dict[str, Any]:
    """Messages as plain values.

    Raises:
        WireError: there are too many, a text is too long or a value is empty.
    """
    if len(values) > MAX_VALUES or any(len(key) > MAX_NAME for key in values):
        raise WireError(f"{len(values)} values came, at most {MAX_VALUES} with short names are allowed")
    return {key: _from_value(key, value) for key, value in values.items()}


def _to_value(value: Any) -> pb.Value:
    match value:
        case bool():
            return pb.Value(flag=value)
        case int():
            return pb.Value(integer=value)
        case float():
            return pb.Value(real=value)
        case str():
            return pb.Value(text=value)
        case list() if all(isinstance(item, str) for item in value):
            return pb.Value(texts=pb.Texts(items=value))
    raise WireError(f"a {type(value).__name__} cannot travel on the link")


def _from_value(key: str, value: pb.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind is None:
        raise WireError(f"{key:.40} has no value")
    if kind == "texts":
        return list(value.texts.items)
    if kind == "text" and len(value.text) > MAX_TEXT:
        raise WireError(f"{key:.40} is a text of {len(value.text)} characters, at most {MAX_TEXT} are allowed")
    return getattr(value, kind)
