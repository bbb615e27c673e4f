"""Rule: a node's own images are read as they are, or refused in a sentence that names the file and the fault."""

import io
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common import own_data
from common.errors import DataError

IMAGES = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)
LABELS = np.array([7, 0, 9])


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "own.npz"
    np.savez(path, **{"images": IMAGES, "labels": LABELS} | arrays)
    return path


def zipped(folder: Path, *members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "own.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()


def png(folder: Path, name: str, pixels: np.ndarray[Any, Any] = IMAGES[0], mode: str = "L") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path, "PNG")
    return path


def refusal(path: Path, max_examples: int | None = None) -> str:
    with pytest.raises(DataError) as raised:
        own_data.load(path, max_examples)
    assert raised.value.exit_code == 2
    return str(raised.value)


@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i4", "uint64"])
def test_an_npz_is_read_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    data = own_data.load(npz(tmp_path, labels=LABELS.astype(dtype)), 3)

    assert data.images.numpy().tobytes() == IMAGES.tobytes()
    assert data.labels.tolist() == [7, 0, 9]


def test_a_compressed_npz_in_fortran_order_is_read_the_same(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "own.npz", images=np.asfortranarray(IMAGES), labels=LABELS)

    assert own_data.load(tmp_path / "own.npz").images.tolist() == IMAGES.tolist()


def test_a_folder_is_read_by_label_and_then_by_name(tmp_path: Path) -> None:
    png(tmp_path, "9/b.PNG", IMAGES[0])
    png(tmp_path, "9/a.png", IMAGES[1])
    png(tmp_path, "0/z.png", IMAGES[2])
    (tmp_path / "9" / ".thumbnail").write_text("hidden files are passed over")
    (tmp_path / "notes.txt").write_text("so are files beside the label folders")

    data = own_data.load(tmp_path, 3)

    assert data.labels.tolist() == [0, 9, 9]
    assert data.images.tolist() == IMAGES[[2, 1, 0]].tolist()


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nothing") == (
        f"{tmp_path}/nothing does not exist: --data takes an .npz file (images, labels) or a folder of label/*.png"
    )


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert refusal(tmp_path / "pipe").startswith(f"{tmp_path}/pipe is no file or folder")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES.astype(np.float32)}, "images must be uint8 [N, 28, 28], got float32 [3, 28, 28]"),
        ({"images": IMAGES[:, :27]}, "images must be uint8 [N, 28, 28], got uint8 [3, 27, 28]"),
        ({"images": IMAGES[0]}, "images must be uint8 [N, 28, 28], got uint8 [28, 28]"),
        ({"images": np.array(3, np.uint8)}, "images must be uint8 [N, 28, 28], got uint8 []"),
        ({"labels": LABELS.astype(float)}, "labels must be integers [N], got float64 [3]"),
        ({"labels": LABELS[:, None]}, "labels must be integers [N], got int64 [3, 1]"),
        ({"labels": np.array(3)}, "labels must be integers [N], got int64 []"),
        ({"labels": LABELS == 0}, "labels must be integers [N], got bool [3]"),
        ({"labels": LABELS.astype(object)}, "labels must be integers [N], got object [3]"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    assert f"own.npz: {message}; --data takes" in refusal(npz(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": LABELS[:2]}, "there must be one label for each image, got 3 and 2"),
        ({"labels": np.array([0, 10, 1])}, "labels must be 0 to 9, got 10"),
        ({"labels": np.array([0, -1, 1])}, "labels must be 0 to 9, got -1"),
        ({"labels": np.array([0, 2**63, 1], np.uint64)}, "labels must be 0 to 9, got 9223372036854775808"),
    ],
)
def test_labels_that_fit_no_image_or_no_class_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    assert refusal(npz(tmp_path, **arrays)) == f"{tmp_path}/own.npz: {message}"


def test_no_images_and_too_many_images_are_refused(tmp_path: Path) -> None:
    assert "there must be 1 to 1000000 images, got 0" in refusal(npz(tmp_path, images=IMAGES[:0], labels=LABELS[:0]))
    assert "there must be 1 to 2 images, got 3" in refusal(npz(tmp_path), 2)


def test_a_missing_array_is_refused_with_what_is_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=IMAGES, labels=LABELS)

    assert "expected the arrays images and labels, got x.npy, labels.npy" in refusal(tmp_path / "own.npz")
    assert "got none" in refusal(zipped(tmp_path))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "File is not a zip file"),
        (lambda content: content[:-30], "File is not a zip file"),
        (lambda content: content.replace(bytes(range(100)), bytes(100), 1), "Bad CRC-32 for file 'images.npy'"),
    ],
    ids=["empty", "cut short", "one place"],
)
def test_a_damaged_npz_is_refused(tmp_path: Path, damage: Any, message: str) -> None:
    path = npz(tmp_path)
    path.write_bytes(damage(path.read_bytes()))

    assert refusal(path).startswith(f"{path} is not a sound .npz file: {message}")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        npy_header((3, 28, 28)) + b"short",
    ],
    ids=["empty", "cut short", "unknown version", "endless header", "fewer bytes than promised"],
)
def test_a_member_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    path = zipped(tmp_path, ("images.npy", content), ("labels.npy", npy_header((3,)) + bytes(3)))

    assert refusal(path).startswith(f"{path} is not a sound .npz file: ")


def test_a_member_that_holds_python_objects_is_never_unpickled(tmp_path: Path) -> None:
    path = zipped(tmp_path, ("images.npy", npy_header((3, 28, 28), "|O") + b"cos\nsystem\n(S'false'\ntR."))

    assert "images must be uint8 [N, 28, 28], got object [3, 28, 28]" in refusal(path)


def test_an_unusual_compression_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, ("images.npy", bytes(10)), compression=zipfile.ZIP_LZMA)

    assert "images must be stored or deflated, as numpy.savez does, got method 14" in refusal(path)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (npy_header((60_000, 28, 28)), "there must be 1 to 100 images, got 60000"),
        (b"\x93NUMPY\x02\x00\x00\x00\x00\x03", "is not a sound .npz file"),  # a header of 50 MB
    ],
    ids=["many images", "long header"],
)
def test_a_small_file_that_unpacks_to_much_is_refused_before_memory_is_taken(
    tmp_path: Path, start: bytes, message: str
) -> None:
    path = zipped(tmp_path, ("images.npy", start + bytes(50_000_000)), ("labels.npy", npy_header((3,)) + bytes(3)))
    assert path.stat().st_size < 100_000

    tracemalloc.start()
    text = refusal(path, 100)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert message in text
    assert peak_bytes < 5_000_000


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()

    assert refusal(tmp_path).startswith(f"{tmp_path} holds no images; --data takes")


def test_a_folder_that_is_no_label_is_refused(tmp_path: Path) -> None:
    png(tmp_path, "cat/a.png")

    assert refusal(tmp_path) == f"{tmp_path}/cat is no label: the folders in {tmp_path} must be named 0 to 9"


def test_a_file_that_is_no_png_is_refused(tmp_path: Path) -> None:
    png(tmp_path, "3/a.png")
    (tmp_path / "3" / "b.jpg").write_bytes(b"")

    assert refusal(tmp_path) == f"{tmp_path}/3/b.jpg is not a PNG file: remove it or convert it"


def test_a_pipe_among_the_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    os.mkfifo(tmp_path / "3" / "a.png")

    assert refusal(tmp_path) == f"{tmp_path}/3/a.png is not a PNG file: remove it or convert it"


def test_more_files_than_allowed_are_refused(tmp_path: Path) -> None:
    for name in ("0/a.png", "0/b.png", "1/a.png"):
        png(tmp_path, name)

    assert refusal(tmp_path, 2) == f"{tmp_path}: there must be 1 to 2 images, got more"


@pytest.mark.parametrize(
    ("pixels", "mode", "got"),
    [
        (IMAGES[0, :27], "L", "28x27 in mode L"),
        (IMAGES[0], "RGB", "28x28 in mode RGB"),
        (IMAGES[0], "1", "28x28 in mode 1"),
        (IMAGES[0], "P", "28x28 in mode P"),
        (IMAGES[0].astype(np.uint16), "I;16", "28x28 in mode I;16"),
        (np.zeros((10_000, 10_000), np.uint8), "1", "10000x10000 in mode 1"),
    ],
)
def test_images_of_another_size_or_colour_are_refused(
    tmp_path: Path, pixels: np.ndarray[Any, Any], mode: str, got: str
) -> None:
    path = png(tmp_path, "3/a.png", pixels, mode)

    assert refusal(tmp_path) == f"{path} must be 28x28 pixels in 8-bit greyscale (mode L), got {got}"


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:60], lambda content: content[:45] + bytes(20) + content[65:]],
    ids=["empty", "cut short", "one place"],
)
def test_a_damaged_png_is_refused(tmp_path: Path, damage: Any) -> None:
    path = png(tmp_path, "3/a.png")
    path.write_bytes(damage(path.read_bytes()))

    assert refusal(tmp_path).startswith(f"{path} is not a sound PNG file: ")
