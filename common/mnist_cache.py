"""The MNIST cache of a machine: made once from the bundle, checksummed, offline first.

::

    data/mnist/train-images-idx3-ubyte.gz                 bundled; or else torchvision downloads it
    STATE/cache/mnist/MNIST/raw/train-images-idx3-ubyte   unpacked, SHA-256 checked; torchvision reads it
    STATE/cache/mnist/train-images.npy                    what torchvision read; all reads map this

A file is complete or absent (written beside its place, then renamed), so later a look at sizes is enough.
"""

import hashlib
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from common.errors import DataError
from common.mnist_bundle import FILES, Split, Uint8Array, blocks, packed
from common.mnist_convert import convert
from common.replacing import forget_unfinished, replacing
from common.state import state_dir
from common.torchvision_import import import_torchvision

_NUM_IMAGES: dict[Split, int] = {"train": 60_000, "test": 10_000}
_HEADER_BYTES = 4096  # the most that a .npy file may add to its array
_LOCK_SECONDS = 600.0  # a slow memory card takes a minute
_NEAR_BYTES = 32 * 1024  # where images to read lie closer, a memory card is sooner done with the whole file in order


def open_arrays(split: Split) -> tuple[Uint8Array, Uint8Array]:
    """Map images, uint8 [N, 28, 28], and labels, uint8 [N], read-only; make the cache where needed.

    Safe in any number of processes at once: one makes the cache, the others wait for it.

    Raises:
        DataError: the bundle is damaged or cannot be had, or the state folder cannot hold the cache.
    """
    with _cache() as cache:
        return _map(cache, split, "images"), _map(cache, split, "labels")


def read_images(split: Split, indices: npt.NDArray[np.int64]) -> Uint8Array:
    """The images at ``indices`` (int64 [M], each 0..N-1), uint8 [M, 28, 28], as memory of their own.

    They are read one by one: what is touched of a mapping counts as this process's memory.

    Raises:
        DataError: as for ``open_arrays``.
    """
    with _cache() as cache:
        mapped = _map(cache, split, "images")
        assert isinstance(mapped.base, np.memmap)
        first, size = mapped.base.offset, mapped[0].nbytes
        kept = np.empty((len(indices), *mapped.shape[1:]), np.uint8)
        with (cache / f"{split}-images.npy").open("rb", buffering=0) as file:
            if len(indices) * _NEAR_BYTES > mapped.nbytes and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
            for place in np.argsort(indices).tolist():
                file.seek(first + int(indices[place]) * size)
                if file.readinto(kept[place].data) != size:
                    raise OSError(f"{file.name} is cut off")
        return kept


@contextmanager
def _cache() -> Iterator[Path]:
    """The folder of the cache, which is whole."""
    cache = state_dir() / "cache" / "mnist"
    try:
        if not is_whole(cache):
            _make_whole(cache)
        yield cache
    except Timeout:
        raise DataError(
            f"another process has been unpacking MNIST into {cache} for {_LOCK_SECONDS / 60:g} minutes: stop it, retry"
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot keep MNIST in {cache}: {error.strerror or error}; it takes 110 MB: make room there, or name"
            " another state folder with FEDGE_STATE_DIR"
        ) from None


def is_whole(cache: Path) -> bool:
    """Whether every file of the cache is there with its size and form (their sums were checked when made)."""
    if any(_num_bytes(_raw(cache) / name) != num_bytes for name, (num_bytes, _) in FILES.items()):
        return False
    try:
        for split in _NUM_IMAGES:
            _map(cache, split, "images")
            _map(cache, split, "labels")
    except (OSError, ValueError):  # missing, torn or foreign
        return False
    return True


def _map(cache: Path, split: Split, kind: str) -> Uint8Array:
    path, num_images = cache / f"{split}-{kind}.npy", _NUM_IMAGES[split]
    shape = (num_images, 28, 28) if kind == "images" else (num_images,)
    if _num_bytes(path) > math.prod(shape) + _HEADER_BYTES:
        raise ValueError(f"{path} is too long")
    array: Uint8Array = np.asarray(np.lib.format.open_memmap(path, mode="r"))
    if array.dtype != np.uint8 or array.shape != shape:
        raise ValueError(f"{path} holds {array.dtype} {array.shape}")
    return array


def _make_whole(cache: Path) -> None:
    _raw(cache).mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock", timeout=_LOCK_SECONDS):
        if is_whole(cache):
            return
        for folder in (cache, _raw(cache)):
            forget_unfinished(folder)
        damaged = [name for name in FILES if not _is_original(_raw(cache) / name)]
        if all(packed(name).exists() for name in damaged):
            for name in damaged:
                _unpack(name, _raw(cache))
        else:
            _download(cache)
        convert(cache)


def _unpack(name: str, folder: Path) -> None:
    with replacing(folder / name) as sink:
        for block in blocks(name):
            sink.write(block)


def _download(cache: Path) -> None:
    folder = cache / ".download"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        import_torchvision().datasets.MNIST(folder, download=True)
        for name in FILES:
            if not _is_original(_raw(folder) / name):
                raise DataError(f"the downloaded {name} is not the original (its SHA-256 differs): try again later")
            (_raw(folder) / name).replace(_raw(cache) / name)
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1]
        raise DataError(
            f"MNIST is not bundled in {packed('').parent} and cannot be downloaded: {reason}\n"
            "put the four .gz files there, or name the folder that holds mnist/ with FEDGE_DATA_DIR"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_original(path: Path) -> bool:
    if _num_bytes(path) != FILES[path.name][0]:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == FILES[path.name][1]


def _num_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _raw(root: Path) -> Path:
    return root / "MNIST" / "raw"  # torchvision's layout
