"""Rule: however a data set is divided, every sample is in exactly one shard and no shard is empty."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from common.settings import DataSettings
from common.shards import partition

LABELS = st.lists(st.integers(0, 9), min_size=1, max_size=300).map(lambda labels: np.array(labels, dtype=np.uint8))
SCHEMES: list[Literal["iid", "dirichlet", "by_label"]] = ["iid", "dirichlet", "by_label"]
SEEDS = st.integers(0, 2**32 - 1)
ALPHAS = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)


@st.composite
def divisions(draw: st.DrawFn) -> tuple[npt.NDArray[np.uint8], DataSettings]:
    """Labels, and a way to divide them that is possible."""
    labels = draw(LABELS)
    labels_per_shard = draw(st.integers(1, min(10, len(labels))))
    scheme = draw(st.sampled_from(SCHEMES))
    most = len(labels) // labels_per_shard if scheme == "by_label" else len(labels)
    return labels, DataSettings(
        partition=scheme,
        num_shards=draw(st.integers(1, most)),
        dirichlet_alpha=draw(ALPHAS),
        holdout=0.0,
        labels_per_shard=labels_per_shard,
    )


@given(division=divisions(), seed=SEEDS)
def test_every_sample_is_in_exactly_one_shard(division: tuple[npt.NDArray[np.uint8], DataSettings], seed: int) -> None:
    labels, settings = division

    shards = partition(labels, settings, seed)

    assert len(shards) == settings.num_shards
    assert sorted(np.concatenate(shards).tolist()) == list(range(len(labels)))
    for shard in shards:
        assert shard.dtype == np.int64
        assert len(shard) >= 1
        assert (np.diff(shard) > 0).all()


@given(division=divisions(), seed=SEEDS)
def test_the_same_seed_gives_the_same_shards_whatever_type_the_labels_have(
    division: tuple[npt.NDArray[np.uint8], DataSettings], seed: int
) -> None:
    labels, settings = division
    np.random.seed(seed % 7)  # the global stream is neither used nor touched
    before = np.random.get_state(legacy=False)

    again = partition(labels.astype(np.int64), settings, seed)

    for one, other in zip(partition(labels, settings, seed), again, strict=True):
        assert one.tolist() == other.tolist()
    after = np.random.get_state(legacy=False)
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert before["state"]["key"].tolist() == after["state"]["key"].tolist()
    assert before["state"]["pos"] == after["state"]["pos"]


@given(division=divisions(), seed=SEEDS)
def test_sizes_are_equal_where_the_scheme_says_so(
    division: tuple[npt.NDArray[np.uint8], DataSettings], seed: int
) -> None:
    labels, settings = division

    sizes = [len(shard) for shard in partition(labels, settings, seed)]

    if settings.partition == "iid":
        assert max(sizes) - min(sizes) <= 1
    if settings.partition == "by_label":  # the sizes of pieces differ by one at most
        assert max(sizes) - min(sizes) <= settings.labels_per_shard


@given(division=divisions(), seed=SEEDS)
def test_by_label_breaks_a_label_off_no_more_often_than_borders_force_it(
    division: tuple[npt.NDArray[np.uint8], DataSettings], seed: int
) -> None:
    labels, settings = division
    settings = settings.model_copy(update={"partition": "by_label"})
    if settings.num_shards * settings.labels_per_shard > len(labels):
        settings = settings.model_copy(update={"num_shards": len(labels) // settings.labels_per_shard})

    shards = partition(labels, settings, seed)

    # P pieces have at most P + (borders between labels) labels; a shard is labels_per_shard of them.
    num_pieces = settings.num_shards * settings.labels_per_shard
    borders = len(set(labels.tolist())) - 1
    assert sum(len(set(labels[shard].tolist())) for shard in shards) <= num_pieces + borders
    for shard in shards:
        assert len(set(labels[shard].tolist())) <= settings.labels_per_shard + borders
