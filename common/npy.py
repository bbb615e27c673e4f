"""Flower's arrays hold NumPy's file format; ours hold the values, and make a file only for whoever asks for its bytes.

NumPy reads a header as Python source, which takes longer than reading the values of a LeNet5: a server
would spend most of a round on headers that are all the same.
"""

import math
from functools import lru_cache
from io import BytesIO
from tokenize import TokenError
from typing import Any

import numpy as np
from flwr import app as flower

STYPE = "numpy.ndarray"
_PREFIX_BYTES = 10  # magic, version 1.0, and the length of the rest of the header: two bytes, little-endian
_MAX_REMEMBERED_BYTES = 512  # a header of this length is kept; longer ones are not of honest tensors
_NO_HEADER = (ValueError, EOFError, OSError, MemoryError, SyntaxError, TypeError, TokenError, RecursionError)


class Array(flower.Array):
    """The array that Flower makes of ``values``, to whoever asks, without a copy: they must not change any more.

    It bears its parent's name because that is how Flower's engines tell what kind of thing travels.
    """

    values: np.ndarray

    def __init__(self, values: np.ndarray) -> None:
        values = np.asarray(values, order="C")
        if values.flags.writeable:
            values = values.view()
            values.flags.writeable = False
        self.__dict__.update(dtype=_name(values.dtype), shape=values.shape, stype=STYPE, values=values)

    @property
    def data(self) -> bytes:  # type: ignore[override]  # never set: it follows from the values
        """NumPy's file format."""
        return _head(self.values.dtype.str, self.shape) + self.values.tobytes()

    def numpy(self) -> np.ndarray:
        """The values, as memory of its own: some strategies write into what they are given."""
        return self.values.copy()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, flower.Array):
            return NotImplemented
        return (self.dtype, self.shape, self.stype, self.data) == (other.dtype, other.shape, other.stype, other.data)

    __hash__ = None  # type: ignore[assignment]  # as Flower's have none


def num_bytes(array: flower.Array) -> int:
    """Size of an array in NumPy's file format."""
    if isinstance(array, Array):
        return head_bytes(array.values.dtype, array.shape) + array.values.nbytes
    return len(array.data)


def head_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Size of what stands before the values in NumPy's file format."""
    return len(_head(dtype.str, shape))


def read(data: bytes) -> np.ndarray | None:
    """The array in ``data``, read-only and without a copy, or None if ``data`` is no plain array in C order."""
    num_bytes = _PREFIX_BYTES + int.from_bytes(data[_PREFIX_BYTES - 2 : _PREFIX_BYTES], "little")
    head = data[:num_bytes]
    found = _remembered(head) if num_bytes <= _MAX_REMEMBERED_BYTES else _claims(head)
    if found is None or len(data) - num_bytes != math.prod(found[0]) * found[1].itemsize:
        return None
    try:
        return np.ndarray(*found, buffer=data, offset=num_bytes)
    except ValueError:  # a negative side, or one of 0 that hides others too long for NumPy
        return None


@lru_cache(maxsize=64)
def _name(dtype: np.dtype[Any]) -> str:
    return str(dtype)


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
    plain = all(type(side) is int for side in shape)  # True would pass for 1, and NumPy then fails at it
    return (shape, dtype) if plain and not fortran and not dtype.hasobject else None


_remembered = lru_cache(maxsize=256)(_claims)
