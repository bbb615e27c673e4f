"""Rule: an array costs no copy, its form is NumPy's own to the bit, and what is no such form is nothing."""

import pickle

import numpy as np
import pytest
from flwr import app as flower

from common.arrays import record_of, to_state
from common.npy import Array, num_bytes, read

SHAPES = [(), (0,), (3, 0, 2), (7,), (2, 3, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_the_form_is_that_of_flower_itself(shape: tuple[int, ...], dtype: str) -> None:
    values = np.arange(np.prod(shape), dtype="int64").reshape(shape).astype(dtype)
    ours, theirs = Array(values), flower.Array(values)
    assert ours == theirs
    assert theirs == ours
    assert num_bytes(ours) == num_bytes(theirs) == len(theirs.data)
    for found in (read(ours.data), ours.numpy(), pickle.loads(pickle.dumps(ours)).numpy()):
        assert found is not None
        assert (found.dtype, found.shape, found.tobytes()) == (values.dtype, values.shape, values.tobytes())
    assert ours.deflate() == theirs.deflate()  # what Flower's SuperLink carries


def test_other_values_are_another_array() -> None:
    ones = np.ones(3, np.float32)
    others = [np.zeros(3, np.float32), np.ones((3, 1), np.float32), np.ones(3, np.float64)]
    assert [Array(ones) == flower.Array(np.array(other)) for other in others] == [False] * 3
    assert Array(ones) != "ones"


def test_values_in_another_order_are_put_in_order() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T  # lies column by column
    found = read(Array(values).data)
    assert found is not None
    assert found.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_nobody_writes_into_what_others_share() -> None:
    values = np.zeros(3, np.float32)
    shared = Array(values)
    for view in (shared.values, read(shared.data)):
        assert view is not None
        with pytest.raises(ValueError, match="read-only"):
            view[:] = 1.0
    values[:] = 2.0  # whoever made the array may still write: see its docstring
    for own in (to_state(record_of({"x": shared}))["x"], shared.numpy()):
        own += 1.0
    assert values.tolist() == [2.0, 2.0, 2.0]


def test_a_header_that_lies_or_is_none_is_nothing() -> None:
    data = Array(np.zeros((2, 3), np.float32)).data
    bad = [
        b"",
        data[:9],
        data[:-1],
        data + b"\0",
        data.replace(b"(2, 3)", b"(-2,-3)")[:-1],
        data.replace(b"(2, 3)", b"(3, 3)"),
        data.replace(b"(2, 3)", b"(True, 6)")[:-3],  # as many values, and a side that is no number
        data.replace(b"'<f4'", b"'|O4'"),
        data.replace(b"False", b"True "),  # in Fortran's order
        data.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x03"),
        data.replace(b"{", b"("),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
    ]
    assert [read(each) for each in bad] == [None] * len(bad)
