"""A node's own images (``--data PATH``): an ``.npz`` file or a folder of ``label/*.png``, validated.

Nothing is believed before it is checked: sizes are read from headers and bounded before memory is
taken for them. Images are like MNIST's: 28×28, 8-bit greyscale, light strokes on a dark ground.
"""

import io
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from common.errors import DataError
from common.mnist import Images, as_images

_SIDE = 28  # pixels
_NUM_LABELS = 10
_MAX_EXAMPLES = 1_000_000  # 0.8 GB: what no setting may exceed
_NPY_HEADER_BYTES = 10_000  # numpy's own bound for a header that needs no trust
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes

_LABELS = {str(label) for label in range(_NUM_LABELS)}
# What zipfile, zlib, numpy and Pillow raise for damaged bytes, seen under random damage.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    SyntaxError,
    RuntimeError,  # an encrypted member
    NotImplementedError,
    OverflowError,
    MemoryError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)
_FORMS = "--data takes an .npz file (images, labels) or a folder of label/*.png"


def load(path: Path, max_examples: int | None = None) -> Images:
    """Read and check a node's own images.

    Args:
        path: an ``.npz`` file with ``images`` (uint8 [N, 28, 28]) and ``labels`` (integers [N], each
            0..9), or a folder with folders ``0`` to ``9`` of greyscale 28×28 PNG files.
        max_examples: the most images to accept, >= 1; None for a million.

    Returns:
        The images in the order of the ``.npz``, or by label and then by file name.

    Raises:
        DataError: nothing there, damaged, empty, too many, or of another form; the file is named.
    """
    limit = min(max_examples or _MAX_EXAMPLES, _MAX_EXAMPLES)
    try:
        if path.is_dir():
            return _from_folder(path, limit)
        if path.is_file():
            return _from_npz(path, limit)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or path}: {error.strerror or error}") from None
    raise DataError(f"{path} {'is no file or folder' if path.exists() else 'does not exist'}: {_FORMS}")


def _from_npz(path: Path, limit: int) -> Images:
    try:
        with zipfile.ZipFile(path) as archive:
            images = _array(archive, "images", limit)
            labels = _array(archive, "labels", limit)
    except DataError as error:
        raise DataError(f"{path}: {error}; {_FORMS}") from None
    except _DAMAGE as error:
        raise DataError(f"{path} is not a sound .npz file: {error or type(error).__name__}; {_FORMS}") from None
    if len(images) != len(labels):
        raise DataError(f"{path}: there must be one label for each image, got {len(images)} and {len(labels)}")
    if wrong := [int(label) for label in (labels.min(), labels.max()) if not 0 <= label < _NUM_LABELS]:
        raise DataError(f"{path}: labels must be 0 to {_NUM_LABELS - 1}, got {wrong[0]}")
    return as_images(np.ascontiguousarray(images), labels)


def _array(archive: zipfile.ZipFile, key: str, limit: int) -> npt.NDArray[Any]:
    """One array of the archive: its header is checked before memory is taken for the rest."""
    if f"{key}.npy" not in archive.namelist():
        raise DataError(f"expected the arrays images and labels, got {_listed(archive.namelist())}")
    member = archive.getinfo(f"{key}.npy")
    if member.compress_type not in _COMPRESSIONS:
        raise DataError(f"{key} must be stored or deflated, as numpy.savez does, got method {member.compress_type}")
    with archive.open(member) as content:
        shape, dtype = _header(content.read(_NPY_HEADER_BYTES))
    _check_form(key, shape, dtype, limit)
    with archive.open(member) as content:
        return np.lib.format.read_array(content, allow_pickle=False)


def _header(start: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    stream = io.BytesIO(start)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream, max_header_size=_NPY_HEADER_BYTES)
    return shape, dtype


def _check_form(key: str, shape: tuple[int, ...], dtype: np.dtype[Any], limit: int) -> None:
    fits = (
        dtype == np.uint8 and shape[1:] == (_SIDE, _SIDE) if key == "images" else dtype.kind in "iu" and not shape[1:]
    )
    if not fits or not shape:
        expected = f"uint8 [N, {_SIDE}, {_SIDE}]" if key == "images" else "integers [N]"
        raise DataError(f"{key} must be {expected}, got {dtype} {list(shape)}")
    _check_count(shape[0], limit)


def _check_count(count: int, limit: int) -> None:
    if not 1 <= count <= limit:
        raise DataError(f"there must be 1 to {limit} images, got {count}")


def _from_folder(folder: Path, limit: int) -> Images:
    files = []
    for path, label in _pngs(folder):
        files.append((path, label))
        if len(files) > limit:
            raise DataError(f"{folder}: there must be 1 to {limit} images, got more")
    if not files:
        raise DataError(f"{folder} holds no images; {_FORMS}")
    images = np.empty((len(files), _SIDE, _SIDE), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked before decoding
        for image, (path, _) in zip(images, files, strict=True):
            image[:] = _pixels(path)
    return as_images(images, np.array([label for _, label in files]))


def _pngs(folder: Path) -> Iterator[tuple[Path, int]]:
    """Each PNG file with its label, by label and then by name; hidden files are passed over."""
    for inner in sorted(_visible(folder)):
        if not inner.is_dir():
            continue
        if inner.name not in _LABELS:
            raise DataError(f"{inner} is no label: the folders in {folder} must be named 0 to {_NUM_LABELS - 1}")
        for path in sorted(_visible(inner)):
            if path.suffix.lower() != ".png" or not path.is_file():
                raise DataError(f"{path} is not a PNG file: remove it or convert it")
            yield path, int(inner.name)


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    """One image, uint8 [28, 28]; size and mode stand in the file's first bytes, read before decoding."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            (width, height), mode = image.size, image.mode
            if (width, height, mode) == (_SIDE, _SIDE, "L"):
                return np.asarray(image)
    except _DAMAGE as error:
        raise DataError(f"{path} is not a sound PNG file: {error}") from None
    raise DataError(
        f"{path} must be {_SIDE}x{_SIDE} pixels in 8-bit greyscale (mode L), got {width}x{height} in mode {mode}"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) or "none"
