"""A ``state_dict`` as Flower's record of arrays, and back: what comes in is typed and bounded, never unpickled."""

import math
from collections.abc import Mapping
from io import BytesIO
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from common.errors import WireError
from common.models import State

# What NumPy raises over a damaged array: it parses the header as Python source.
_NO_ARRAY = (ValueError, EOFError, OSError, MemoryError, SyntaxError, TypeError, TokenError, RecursionError)


def to_record(state: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """A ``state_dict`` as Flower's record, bit for bit."""
    return ArrayRecord({name: Array(value.numpy()) for name, value in state.items()})


def to_state(record: ArrayRecord) -> State:
    """Flower's record as a ``state_dict``, bit for bit.

    Raises:
        WireError: an array's bytes are not the NumPy array that it claims.
    """
    return {name: torch.from_numpy(to_ndarray(name, array)) for name, array in record.items()}


def to_ndarray(name: str, array: Array) -> np.ndarray:
    """The values of one array of a record; never unpickles.

    Raises:
        WireError: they are not the NumPy array that the record claims.
    """
    if array.stype != "numpy.ndarray":
        raise WireError(f"{name} is serialised as {array.stype!r:.40}, expected 'numpy.ndarray'")
    header = _npy_header(array.data)
    if header is None or header[0] != array.shape or str(header[1]) != array.dtype:
        raise WireError(f"{name} does not hold the {array.dtype!r:.20} array of shape {array.shape!r:.60} it claims")
    try:
        return array.numpy()
    except _NO_ARRAY as error:
        raise WireError(f"{name} holds no readable array: {error!s:.100}") from None


def _npy_header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Shape and dtype that the NumPy header of ``data`` claims, if its size fits them."""
    stream = BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except _NO_ARRAY:
        return None
    fits = not dtype.hasobject and len(data) - stream.tell() == math.prod(shape) * dtype.itemsize
    return (shape, dtype) if fits and not fortran else None
