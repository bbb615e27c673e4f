"""Rule: whatever bytes a file of a node's own data holds, it is read or refused in a sentence."""

import contextlib
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from common import own_data
from common.errors import DataError

PIXELS = np.arange(28 * 28).reshape(1, 28, 28).astype(np.uint8)


def npz_bytes() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, images=PIXELS, labels=np.array([3]))
    return file.getvalue()


def png_bytes() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(file, "PNG")
    return file.getvalue()


def npy_bytes(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` with up to four bytes changed, and sometimes cut short."""
    changed = bytearray(content)
    for place, byte in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)):
        changed[place] = byte
    return bytes(changed[: draw(st.one_of(st.none(), st.integers(0, len(content))))])


def read_or_refused(path: Path) -> None:
    with contextlib.suppress(DataError):
        data = own_data.load(path, 10)
        assert data.images.shape == (len(data), 28, 28)
        assert 0 <= int(data.labels.min()) <= int(data.labels.max()) <= 9


@given(content=st.one_of(damaged(npz_bytes()), st.binary(max_size=200)))
def test_any_npz(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.npz"
        path.write_bytes(content)
        read_or_refused(path)


@given(content=st.one_of(damaged(npy_bytes(PIXELS)), st.binary(max_size=200)))
@example(content=b"\x93NUMPY\x01\x00\x03\x00(((")
@example(content=b"\x93NUMPY\x03\x00\x02\x00\x00\x00\xff\xff")
def test_any_array_in_a_sound_zip(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", content)
            archive.writestr("labels.npy", npy_bytes(np.array([3])))
        read_or_refused(path)


@given(content=st.one_of(damaged(png_bytes()), st.binary(max_size=200)))
def test_any_png(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "3" / "a.png"
        path.parent.mkdir()
        path.write_bytes(content)
        read_or_refused(Path(folder))
