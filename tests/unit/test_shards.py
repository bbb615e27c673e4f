"""Rule: the same seed divides MNIST into the same shards everywhere; what cannot be divided is refused."""

import gzip
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from common.errors import SettingsError, UsageError
from common.settings import DataSettings
from common.shards import check_shard, digest, partition

TRAINING_LABELS = Path(__file__).resolve().parents[2] / "data" / "mnist" / "train-labels-idx1-ubyte.gz"
Scheme = Literal["iid", "dirichlet", "by_label"]


def divided(
    scheme: Scheme, num_shards: int = 10, *, dirichlet_alpha: float = 0.5, labels_per_shard: int = 2
) -> DataSettings:
    return DataSettings(
        partition=scheme,
        num_shards=num_shards,
        dirichlet_alpha=dirichlet_alpha,
        holdout=0.0,
        labels_per_shard=labels_per_shard,
    )


@pytest.mark.parametrize(
    ("scheme", "num_shards", "seed", "first", "last", "all_in_order"),
    [
        ("iid", 10, 42, "82dcf3ae3b5140fa", "ad25898225b71e18", "82ae4326581c47c3"),
        ("iid", 4, 0, "e0e0368ecdcc05a8", "a25a1bfb94a801bc", "f55a21fd11b35daa"),
        ("dirichlet", 10, 42, "a1b5a7ff62ff6cb1", "b46d961e50017c8d", "3fb8299d53683e74"),
        ("by_label", 10, 42, "44be8e176d11a6a6", "837d864c65e8587f", "c84becef290f669a"),
        ("by_label", 100, 42, "009c421715adb8f6", "68c94c5bb48b4ce0", "6918c8063dc189e7"),
    ],
)
def test_the_shards_of_mnist_never_change(
    scheme: Scheme, num_shards: int, seed: int, first: str, last: str, all_in_order: str
) -> None:
    labels = np.frombuffer(gzip.decompress(TRAINING_LABELS.read_bytes()), np.uint8, offset=8)

    shards = partition(labels, divided(scheme, num_shards), seed)

    assert (digest(shards[0]), digest(shards[-1]), digest(np.concatenate(shards))) == (first, last, all_in_order)


def test_a_digest_is_of_little_endian_int64_whatever_the_indices_are_kept_in() -> None:
    # printf '\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0' | sha256sum
    assert digest(np.array([1, 2])) == "0c730b69905c5ef7"
    assert digest(np.array([1, 2], dtype=">i8")) == digest(np.array([1, 2]))
    assert digest(np.array([2, 1])) != digest(np.array([1, 2]))


def test_iid_sizes_differ_by_one_at_most() -> None:
    sizes = [len(shard) for shard in partition(np.zeros(11, dtype=np.uint8), divided("iid", 4), seed=0)]

    assert sizes == [3, 3, 3, 2]


def test_by_label_deals_whole_pieces() -> None:
    # Ten labels of two samples, cut into ten pieces: each piece is one label, each shard has two.
    labels = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0] * 2, dtype=np.uint8)

    shards = partition(labels, divided("by_label", 5, labels_per_shard=2), seed=3)

    assert [len(set(labels[shard].tolist())) for shard in shards] == [2, 2, 2, 2, 2]
    assert [np.unique(labels[shard], return_counts=True)[1].tolist() for shard in shards] == [[2, 2]] * 5


def test_a_large_alpha_gives_every_shard_its_share_of_every_label() -> None:
    labels = np.repeat(np.arange(3, dtype=np.uint8), 400)

    shards = partition(labels, divided("dirichlet", 4, dirichlet_alpha=1e308), seed=1)

    counts = np.array([np.bincount(labels[shard], minlength=3) for shard in shards])
    assert np.abs(counts - 100).max() <= 1


def test_the_smallest_alpha_gives_each_label_to_one_shard_and_leaves_none_empty() -> None:
    labels = np.repeat(np.arange(3, dtype=np.uint8), 400)

    shards = partition(labels, divided("dirichlet", 6, dirichlet_alpha=5e-324), seed=1)

    counts = np.array([np.bincount(labels[shard], minlength=3) for shard in shards])
    assert min(len(shard) for shard in shards) == 1  # six shards and three labels: some had to be given a sample
    assert (counts > 1).sum(axis=0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "by_label"])
def test_more_shards_than_images_are_refused(scheme: Scheme) -> None:
    labels = np.zeros(9, dtype=np.uint8)

    with pytest.raises(
        SettingsError, match=r"^data\.num_shards must be at most 9, the number of training images, got 10$"
    ):
        partition(labels, divided(scheme, 10), seed=0)


def test_more_pieces_than_images_are_refused() -> None:
    with pytest.raises(
        SettingsError,
        match=r"^data\.num_shards times data\.labels_per_shard must be at most 60000,"
        r" the number of training images, got 10000 times 7$",
    ):
        partition(np.zeros(60_000, dtype=np.uint8), divided("by_label", 10_000, labels_per_shard=7), seed=0)


@pytest.mark.parametrize("number", [0, 9])
def test_a_shard_that_exists_is_accepted(number: int) -> None:
    check_shard(number, 10)


@pytest.mark.parametrize(
    ("number", "num_shards", "message"),
    [
        (12, 10, "shard 12 does not exist: the training set is divided into 10 shards, 0 to 9"),
        (10, 10, "shard 10 does not exist: the training set is divided into 10 shards, 0 to 9"),
        (-1, 2, "shard -1 does not exist: the training set is divided into 2 shards, 0 to 1"),
        (1, 1, "shard 1 does not exist: the training set is divided into 1 shard, 0"),
    ],
)
def test_a_shard_that_does_not_exist_is_refused(number: int, num_shards: int, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_shard(number, num_shards)

    assert str(raised.value) == message
