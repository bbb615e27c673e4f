"""A ``state_dict`` as Flower's record of arrays, plain or under a codec, and back; never unpickled."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from common import flat, npy
from common.codec import Codec, Layout
from common.codecs import NAMES, PLAIN
from common.errors import WireError
from common.models import State
from common.npy import STYPE, read


def to_record(state: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """A ``state_dict`` as Flower's record, bit for bit, with memory of its own."""
    if state and all(value.dtype == torch.float32 for value in state.values()):
        return flat.ArrayRecord(flat.form_of(state), flat.vector_of(state))
    return record_of({name: npy.Array(np.array(value.numpy())) for name, value in state.items()})


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """A record of these very arrays: Flower's own way makes each of them anew."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record


def to_state(record: ArrayRecord) -> State:
    """Flower's record as a ``state_dict`` with memory of its own, bit for bit.

    Raises:
        WireError: an array's bytes are not the NumPy array that it claims.
    """
    parts = record.parts() if isinstance(record, flat.ArrayRecord) else _read(record)
    return {name: torch.from_numpy(np.array(part)) for name, part in parts}


def to_encoded(state: State, codec: Codec | None, generator: torch.Generator | None = None) -> ArrayRecord:
    """A state under a codec: one uint8 array that bears the codec's name. Without a codec, as ``to_record``.

    Raises:
        WireError: a value is not finite.
    """
    if codec is None:
        return to_record(state)
    return record_of({codec.name: npy.Array(np.frombuffer(codec.encode(state, generator), np.uint8))})


def from_encoded(record: ArrayRecord, codec: Codec | None, layout: Layout) -> State:
    """The state that ``to_encoded`` made a record of; ``layout`` gives its names and shapes.

    Raises:
        WireError: the record is under another codec, or the payload is none for this layout.
    """
    if codec_of(record) != (codec.name if codec else PLAIN):
        raise WireError(f"the weights are {codec_of(record)}, expected {codec.name if codec else PLAIN}")
    if codec is None:
        return to_state(record)
    payload = to_ndarray(codec.name, record[codec.name])
    if payload.dtype != np.uint8:
        raise WireError(f"the {codec.name} payload has dtype {payload.dtype}, expected 'uint8'")
    return codec.decode(payload.tobytes(), layout)


def codec_of(record: ArrayRecord) -> str:
    """The name of the codec that a record seems to be under, ``PLAIN`` for tensors."""
    return next(iter(record)) if len(record) == 1 and next(iter(record)) in NAMES else PLAIN


def _read(record: ArrayRecord) -> Iterator[tuple[str, np.ndarray]]:
    return ((name, to_ndarray(name, array)) for name, array in record.items())


def to_ndarray(name: str, array: Array) -> np.ndarray:
    """The values of one array of a record, read-only; never unpickles.

    Raises:
        WireError: they are not the NumPy array that the record claims.
    """
    if isinstance(array, npy.Array):
        return array.values
    if array.stype != STYPE:
        raise WireError(f"{name} is serialised as {array.stype!r:.40}, expected 'numpy.ndarray'")
    values = read(array.data)
    if values is None or values.shape != tuple(array.shape) or str(values.dtype) != array.dtype:
        raise WireError(f"{name} does not hold the {array.dtype!r:.20} array of shape {array.shape!r:.60} it claims")
    return values
