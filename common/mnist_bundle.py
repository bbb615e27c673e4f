"""The bundled MNIST files: where they are, what they must hold, and one split of them without a cache.

Reading through here needs NumPy alone; whoever trains reads the cache (``common.mnist``), which costs less.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from common.errors import DataError

Split = Literal["train", "test"]
Uint8Array = npt.NDArray[np.uint8]

# Size in bytes and SHA-256 of each uncompressed file (data/mnist/SHA256SUMS says the same); here
# rather than read from the bundle, so that a download is held to them too.
FILES = {
    "train-images-idx3-ubyte": (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
_BLOCK_BYTES = 1 << 20
_REMEDY = "restore it (git checkout -- data/mnist), or delete it to have MNIST downloaded"
_PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}


def packed(name: str) -> Path:
    """The bundled file: in ``mnist`` of ``FEDGE_DATA_DIR``, or of ``data`` beside the packages."""
    folder = os.environ.get("FEDGE_DATA_DIR") or Path(__file__).resolve().parent.parent / "data"
    return Path(folder).expanduser() / "mnist" / f"{name}.gz"


def blocks(name: str) -> Iterator[bytes]:
    """The content of a bundled file, uncompressed; the end comes only if all of it was the original.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    num_bytes, expected = FILES[name]
    found = hashlib.sha256()
    for block in _unzipped(packed(name), num_bytes):
        found.update(block)
        yield block
    if found.hexdigest() != expected:
        raise DataError(
            f"{packed(name)} is damaged: its content has SHA-256 {found.hexdigest()[:16]}…, expected {expected[:16]}…;"
            f" {_REMEDY}"
        )


def read(split: Split) -> tuple[Uint8Array, Uint8Array]:
    """All images of ``split``, uint8 [N, 28, 28], and their labels, uint8 [N], straight from the bundle.

    Raises:
        DataError: a file is missing, damaged or cannot be read.
    """
    prefix = _PREFIX[split]
    images = _values(f"{prefix}-images-idx3-ubyte", header_bytes=16)  # magic number, N, 28, 28
    labels = _values(f"{prefix}-labels-idx1-ubyte", header_bytes=8)  # magic number, N
    return images.reshape(-1, 28, 28), labels


def _values(name: str, header_bytes: int) -> Uint8Array:
    return np.frombuffer(bytearray(b"".join(blocks(name))), dtype=np.uint8, offset=header_bytes)


def _unzipped(file: Path, num_bytes: int) -> Iterator[bytes]:
    """The content of a .gz file in blocks; where it is longer than ``num_bytes``, little more than that."""
    try:
        with gzip.open(file, "rb") as content:
            for _ in range(num_bytes // _BLOCK_BYTES + 1):
                yield content.read(_BLOCK_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file} is damaged: {error}; {_REMEDY}") from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None
