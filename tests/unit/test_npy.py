"""Rule: an array costs its bytes, its form is NumPy's own to the bit, and what is no such form is nothing."""

import numpy as np
import pytest
from flwr.app import Array

from common.npy import read, to_array

SHAPES = [(), (0,), (3, 0, 2), (7,), (2, 3, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_the_form_is_that_of_flower_itself(shape: tuple[int, ...], dtype: str) -> None:
    values = np.arange(np.prod(shape), dtype="int64").reshape(shape).astype(dtype)
    ours, theirs = to_array(values), Array(values)
    assert ours == theirs
    found = read(ours.data)
    assert found is not None
    assert (found.dtype, found.shape, found.tobytes()) == (values.dtype, values.shape, values.tobytes())


def test_values_in_another_order_are_put_in_order() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T  # lies column by column
    found = read(to_array(values).data)
    assert found is not None
    assert found.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_what_is_read_is_memory_of_its_own() -> None:
    data = to_array(np.zeros(3, np.float32)).data
    for _ in range(2):  # the header is remembered, the values are not
        found = read(data)
        assert found is not None
        assert found.tolist() == [0.0, 0.0, 0.0]
        found[:] = 1.0


def test_a_header_that_lies_or_is_none_is_nothing() -> None:
    data = to_array(np.zeros((2, 3), np.float32)).data
    bad = [
        b"",
        data[:9],
        data[:-1],
        data + b"\0",
        data.replace(b"(2, 3)", b"(-2,-3)")[:-1],
        data.replace(b"(2, 3)", b"(3, 3)"),
        data.replace(b"'<f4'", b"'|O4'"),
        data.replace(b"False", b"True "),  # in Fortran's order
        data.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x03"),
        data.replace(b"{", b"("),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
    ]
    assert [read(each) for each in bad] == [None] * len(bad)
