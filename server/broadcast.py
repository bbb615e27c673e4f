"""Puts the global model into tasks under a codec, and tells what the nodes make of it."""

from collections.abc import Iterable

from flwr.app import Message

from common.arrays import from_encoded, to_encoded
from common.codec import Codec
from common.errors import RunFailed, WireError
from common.models import State


def broadcast(state: State, codec: Codec | None, tasks: Iterable[Message]) -> State:
    """Let ``tasks``, which hold ``state`` as it is, hold it under ``codec``.

    Returns:
        The model that every node decodes and starts from; ``state`` itself without a codec. What rounding takes from it
        is not lost: the server keeps ``state``, and what nodes change is added to that.

    Raises:
        RunFailed: the codec cannot hold a weight of this size.
    """
    if codec is None:
        return state
    try:
        record = to_encoded(state, codec)
        decoded = from_encoded(record, codec, state)
    except WireError as error:
        raise RunFailed(
            f"the model does not fit into {codec.name} (link.broadcast_codec): {error}; use float32"
        ) from None
    for task in tasks:
        task.content["arrays"] = record
    return decoded
