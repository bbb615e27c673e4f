"""Rule: MNIST is read bit for bit or not at all; damage is mended from the bundle, or named in a sentence."""

import functools
import gzip
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from common import mnist, mnist_bundle
from common.errors import DataError
from common.mnist import Images
from common.mnist_bundle import Split
from common.mnist_cache import is_whole, open_arrays
from common.torchvision_import import import_torchvision

BUNDLE = Path(__file__).resolve().parents[2] / "data" / "mnist"
NAMES = [path.name for path in sorted(BUNDLE.glob("*.gz"))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose MNIST cache is made."""
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDGE_STATE_DIR", str(state))
        mnist.load_labels("test")
    return state


@pytest.fixture
def cache(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made cache that the test may damage (by replacing files: they are hard links)."""
    shutil.copytree(made, tmp_path / "state", copy_function=os.link)
    monkeypatch.setenv("FEDGE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state" / "cache" / "mnist"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that the test may damage (by replacing files: they are links), and an empty state folder."""
    monkeypatch.setenv("FEDGE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FEDGE_DATA_DIR", str(tmp_path / "data"))
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).symlink_to(BUNDLE / name)
    return folder


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def bundled(name: str, header_bytes: int) -> bytes:
    return gzip.decompress((BUNDLE / f"{name}.gz").read_bytes())[header_bytes:]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("split", "stem", "first_labels"), [("train", "train", [5, 0, 4, 1, 9]), ("test", "t10k", [7, 2, 1, 0, 4])]
)
def test_every_pixel_and_label_is_that_of_the_bundle(split: Split, stem: str, first_labels: list[int]) -> None:
    data = mnist.load(split)

    assert data.images.dtype == torch.uint8
    assert data.labels.dtype == torch.int64
    assert data.images.shape == (len(data), 28, 28)
    assert data.labels[:5].tolist() == first_labels
    assert data.images.numpy().tobytes() == bundled(f"{stem}-images-idx3-ubyte", 16)
    assert bytes(data.labels.tolist()) == bundled(f"{stem}-labels-idx1-ubyte", 8)
    images, labels = mnist_bundle.read(split)
    assert np.array_equal(images, data.images.numpy())
    assert np.array_equal(labels, data.labels.numpy())


@pytest.mark.usefixtures("cache")
def test_a_part_holds_the_chosen_images_in_their_order_and_nothing_else() -> None:
    whole = mnist.load("test")

    part = mnist.load_part("test", np.array([9_999, 0, 3]))

    assert torch.equal(part.images, whole.images[[9_999, 0, 3]])
    assert part.labels.tolist() == [6, 7, 0]
    assert part.images.untyped_storage().nbytes() == 3 * 28 * 28
    part.images[0, 0, 0] = 255  # the part's own memory: the cache is mapped read-only
    assert torch.equal(mnist.load_part("test", np.arange(9_999, -1, -1)).images, whole.images.flip(0))


@pytest.mark.usefixtures("cache")
def test_labels_alone_are_those_of_the_images() -> None:
    labels = mnist.load_labels("train")

    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_the_cache_has_torchvisions_layout(cache: Path) -> None:
    read = import_torchvision().datasets.MNIST(cache, train=False)

    assert len(read) == 10_000


def test_a_made_cache_needs_no_bundle(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDGE_DATA_DIR", str(cache / "no such folder"))

    assert len(mnist.load("test")) == 10_000


def test_damaged_files_of_the_cache_are_made_again(cache: Path) -> None:
    whole = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    raw = cache / "MNIST" / "raw"
    replace(raw / "train-labels-idx1-ubyte", whole[raw / "train-labels-idx1-ubyte"][:-1])
    replace(raw / "t10k-labels-idx1-ubyte", bytes(10_008))  # of the right size: the sum tells
    replace(cache / "train-images.npy", b"")
    replace(cache / "train-labels.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(70_000))
    replace(cache / "test-images.npy", whole[cache / "test-images.npy"][:1_000])
    replace(cache / "test-labels.npy", whole[cache / "test-labels.npy"].replace(b"(10000,)", b"(10001,)"))
    (cache / ".train-images.npy.4711.part").write_bytes(b"left by a killed process")

    assert len(mnist.load("train")) == 60_000

    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == whole


@pytest.mark.parametrize(
    "content",
    [b"", b"not numpy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(10_000), bytes(15_000)],
    ids=["empty", "foreign", "long header", "long"],
)
def test_a_cached_array_that_is_none_is_noticed(cache: Path, content: bytes) -> None:
    replace(cache / "test-labels.npy", content)

    assert not is_whole(cache)


def flipped(packed: bytes) -> bytes:
    content = bytearray(gzip.decompress(packed))
    content[20] ^= 1
    return gzip.compress(bytes(content), compresslevel=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flipped, r"is damaged: its content has SHA-256 [0-9a-f]{16}…, expected 65a50cbbf4e906d7…; restore it"),
        (lambda packed: packed + gzip.compress(bytes(5 << 20)), r"is damaged: its content has SHA-256"),
        (lambda packed: packed[:-500], r"is damaged: Compressed file ended before the end-of-stream marker"),
        (lambda packed: b"404: not found", r"is damaged: Not a gzipped file"),
        (lambda packed: packed[:40] + b"\xff" * 40 + packed[80:], r"is damaged: Error -3 while decompressing data"),
    ],
    ids=["one bit", "too long", "cut short", "no gzip", "bad stream"],
)
def test_a_damaged_bundle_is_named_with_a_remedy(bundle: Path, damage: object, message: str) -> None:
    packed = bundle / "train-labels-idx1-ubyte.gz"
    assert callable(damage)
    replace(packed, damage(packed.read_bytes()))

    with pytest.raises(DataError, match=message) as raised:
        mnist.load("test")

    assert str(raised.value).startswith(f"{packed} is damaged")
    assert raised.value.exit_code == 2
    assert not list(Path(os.environ["FEDGE_STATE_DIR"]).rglob("train-labels-idx1-ubyte*"))


def test_an_unreadable_bundle_is_named(bundle: Path) -> None:
    packed = bundle / "train-images-idx3-ubyte.gz"
    packed.unlink()
    packed.mkdir()

    with pytest.raises(DataError, match=f"cannot read {packed}: Is a directory"):
        mnist.load("test")


@contextmanager
def mirror(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have torchvision download from ``folder``, served on loopback, and expect the sums of what is there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder)))
    source = import_torchvision().datasets.MNIST
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(source, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    sums = [(name, hashlib.md5((folder / name).read_bytes()).hexdigest()) for name in NAMES]
    monkeypatch.setattr(source, "resources", sums)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_without_the_bundle_torchvision_downloads_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / NAMES[0]).unlink()

    with mirror(BUNDLE, monkeypatch):
        assert len(mnist.load("test")) == 10_000

    assert not (Path(os.environ["FEDGE_STATE_DIR"]) / "cache" / "mnist" / ".download").exists()


def test_a_download_is_held_to_the_same_sums(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / NAMES[0]).unlink()
    for name in NAMES:
        (tmp_path / name).symlink_to(BUNDLE / name)
    other = tmp_path / "t10k-labels-idx1-ubyte.gz"
    replace(other, flipped(other.read_bytes()))

    with (
        mirror(tmp_path, monkeypatch),
        pytest.raises(DataError, match="the downloaded t10k-labels-idx1-ubyte is not the original"),
    ):
        mnist.load("test")


def test_no_bundle_and_no_network_is_a_sentence(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / NAMES[0]).unlink()
    monkeypatch.setattr(import_torchvision().datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    with pytest.raises(DataError, match=r"is not bundled in .* and cannot be downloaded: .*refused") as raised:
        mnist.load("test")

    assert str(raised.value).endswith("or name the folder that holds mnist/ with FEDGE_DATA_DIR")


def test_a_state_folder_that_cannot_hold_the_cache_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where a folder is needed")
    monkeypatch.setenv("FEDGE_STATE_DIR", str(tmp_path))

    with pytest.raises(DataError, match=f"cannot keep MNIST in {tmp_path}/cache/mnist: .* FEDGE_STATE_DIR"):
        mnist.load("test")


def test_a_torchvision_that_fails_is_a_sentence(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise ImportError('it was built for another planet')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FEDGE_STATE_DIR", str(tmp_path))

    with pytest.raises(DataError, match=r"cannot prepare MNIST in .*: ImportError: it was built for another planet"):
        open_arrays("test")


def test_images_are_counted_by_their_labels() -> None:
    assert len(Images(torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))) == 3
