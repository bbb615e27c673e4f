"""Flower's arrays hold NumPy's file format; here headers are written and read once a shape, so values cost a copy.

NumPy reads a header as Python source, which takes longer than reading the values of a LeNet5: a server
would spend most of a round on headers that are all the same.
"""

import math
from functools import lru_cache
from io import BytesIO
from tokenize import TokenError
from typing import Any

import numpy as np
from flwr.app import Array

STYPE = "numpy.ndarray"
_PREFIX_BYTES = 10  # magic, version 1.0, and the length of the rest of the header: two bytes, little-endian
_MAX_REMEMBERED_BYTES = 512  # a header of this length is kept; longer ones are not of honest tensors
_NO_HEADER = (ValueError, EOFError, OSError, MemoryError, SyntaxError, TypeError, TokenError, RecursionError)


def to_array(values: np.ndarray) -> Array:
    """``values`` in the form that ``Array(values)`` gives, bit for bit."""
    head = _head(values.dtype.str, values.shape)
    return Array(str(values.dtype), values.shape, STYPE, head + values.tobytes())


def read(data: bytes) -> np.ndarray | None:
    """The array in ``data``, as memory of its own, or None if ``data`` is no plain array in C order."""
    num_bytes = _PREFIX_BYTES + int.from_bytes(data[_PREFIX_BYTES - 2 : _PREFIX_BYTES], "little")
    head = data[:num_bytes]
    found = _remembered(head) if num_bytes <= _MAX_REMEMBERED_BYTES else _claims(head)
    if found is None or len(data) - num_bytes != math.prod(found[0]) * found[1].itemsize:
        return None
    try:
        return np.ndarray(*found, buffer=data, offset=num_bytes).copy()
    except ValueError:  # a negative side, or one of 0 that hides others too long for NumPy
        return None


@lru_cache(maxsize=256)
def _head(dtype: str, shape: tuple[int, ...]) -> bytes:
    sink = BytesIO()
    np.lib.format.write_array_header_1_0(sink, {"descr": dtype, "fortran_order": False, "shape": shape})
    return sink.getvalue()


def _claims(head: bytes) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Shape and dtype that a header of version 1.0 claims."""
    source = BytesIO(head)
    try:
        if np.lib.format.read_magic(source) != (1, 0):
            return None
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(source)
    except _NO_HEADER:
        return None
    return None if fortran or dtype.hasobject else (shape, dtype)


_remembered = lru_cache(maxsize=256)(_claims)
