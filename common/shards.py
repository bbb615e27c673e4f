"""Divides a data set into shards: iid, dirichlet or by label; every sample in exactly one.

Every machine computes the division for itself, so it must come out the same everywhere: all chance
comes from ``numpy.random.RandomState``, whose streams NumPy has frozen for good (NEP 19), and sums
are running sums, whose order of additions does not depend on a processor's vector width.
"""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import SettingsError, UsageError
from common.settings import DataSettings

Labels = npt.NDArray[np.integer[Any]]
Indices = npt.NDArray[np.int64]

_LARGEST_ALPHA = 1e12  # beyond it all shares are equal to six digits, and their sum could overflow


def partition(labels: Labels, settings: DataSettings, seed: int) -> list[Indices]:
    """Divide the samples with ``labels`` into ``settings.num_shards`` shards.

    Args:
        labels: integers [N], the label of every sample.
        settings: the scheme (``partition``), ``num_shards`` and the parameters of the scheme.
        seed: 0..2**32-1; the same seed gives the same shards on every machine.

    Returns:
        One ascending int64 index list per shard, none empty; together 0..N-1, each index once.

    Raises:
        SettingsError: there are fewer samples than shards (or than pieces, for ``by_label``).
    """
    if len(labels) < settings.num_shards:
        raise SettingsError(
            f"data.num_shards must be at most {len(labels)}, the number of training images, got {settings.num_shards}"
        )
    chance = np.random.RandomState(seed)
    if settings.partition == "iid":
        owner = _iid(len(labels), settings.num_shards, chance)
    elif settings.partition == "dirichlet":
        owner = _dirichlet(labels, settings.num_shards, settings.dirichlet_alpha, chance)
    else:
        owner = _by_label(labels, settings.num_shards, settings.labels_per_shard, chance)
    return _group(owner, settings.num_shards)


def digest(indices: Indices) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the indices as little-endian int64."""
    return hashlib.sha256(np.asarray(indices).astype("<i8").tobytes()).hexdigest()[:16]


def check_shard(number: int, num_shards: int) -> None:
    """Accept ``number`` if it is one of the shards 0..``num_shards``-1.

    Raises:
        UsageError: there is no such shard.
    """
    if not 0 <= number < num_shards:
        shards = "1 shard, 0" if num_shards == 1 else f"{num_shards} shards, 0 to {num_shards - 1}"
        raise UsageError(f"shard {number} does not exist: the training set is divided into {shards}")


def num_held_out(num_samples: int, share: float) -> int:
    """How many of a node's samples (1..) it holds out, for a share of 0..0.5: see ``hold_out``."""
    return min(max(round(share * num_samples), 1), num_samples - 1) if share else 0


def hold_out(num_samples: int, share: float, seed: int, shard: int) -> tuple[Indices, Indices]:
    """Divide a node's samples into those it trains on and those it only tests on, the same in every round.

    Args:
        num_samples: 1..
        share: 0..0.5 of them to hold out; at least one is, if there are two and the share is not 0.
        seed: the run's.
        shard: the shard's number, -1 for a node's own data.

    Returns:
        Ascending int64 indices into the node's samples: the first list is never empty.
    """
    size = num_held_out(num_samples, share)
    chance = np.random.RandomState([seed, shard + 1])
    held = np.zeros(num_samples, dtype=bool)
    held[chance.permutation(num_samples)[:size]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _iid(num_samples: int, num_shards: int, chance: np.random.RandomState) -> Indices:
    """Deal shuffled samples in turn: shard sizes differ by one at most. Returns owners [N]."""
    owner = np.empty(num_samples, dtype=np.int64)
    owner[chance.permutation(num_samples)] = np.arange(num_samples) % num_shards
    return owner


def _by_label(labels: Labels, num_shards: int, labels_per_shard: int, chance: np.random.RandomState) -> Indices:
    """Sort by label, cut into equal pieces, deal them at random (McMahan et al. 2017, section 3).

    A piece that lies across the border of two labels holds both, so a shard has about
    ``labels_per_shard`` labels. Returns owners [N].
    """
    num_pieces = num_shards * labels_per_shard
    if len(labels) < num_pieces:
        raise SettingsError(
            f"data.num_shards times data.labels_per_shard must be at most {len(labels)}, the number of training"
            f" images, got {num_shards} times {labels_per_shard}"
        )
    dealt_to = chance.permutation(num_pieces) // labels_per_shard
    owner = np.empty(len(labels), dtype=np.int64)
    owner[np.argsort(labels, kind="stable")] = dealt_to[np.arange(len(labels)) * num_pieces // len(labels)]
    return owner


def _dirichlet(labels: Labels, num_shards: int, alpha: float, chance: np.random.RandomState) -> Indices:
    """Divide each label by shares drawn from a symmetric Dirichlet distribution.

    The skew of Hsu et al. 2019 ("Measuring the effects of non-identical data distribution"), drawn
    for every label over the shards as in Yurochkin et al. 2019, so that no sample is left over or
    used twice. A shard that ends up with nothing gets one sample of the largest. Returns owners [N].
    """
    owner = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = chance.permutation(np.flatnonzero(labels == label))
        reach = np.cumsum(_gamma_draws(alpha, num_shards, chance))
        middles = (np.arange(len(members)) + 0.5) / len(members) * reach[-1]
        owner[members] = np.searchsorted(reach, middles, side="right")
    _fill_empty(owner, num_shards)
    return owner


def _gamma_draws(alpha: float, num_shards: int, chance: np.random.RandomState) -> npt.NDArray[np.float64]:
    """Gamma draws [num_shards] over the largest of them; their shares of their sum are Dirichlet."""
    draws: npt.NDArray[np.float64] = chance.standard_gamma(min(alpha, _LARGEST_ALPHA), num_shards)
    if not draws.any():  # so small an alpha that all underflowed: in the limit, one shard has it all
        draws[chance.randint(num_shards)] = 1.0
    draws /= draws.max()
    return draws


def _fill_empty(owner: Indices, num_shards: int) -> None:
    """Give each shard without samples the last sample of the largest (ties: lowest number), in place."""
    shards = _group(owner, num_shards)
    sizes = np.array([len(shard) for shard in shards])
    for empty in np.flatnonzero(sizes == 0):
        largest = int(np.argmax(sizes))
        sizes[largest] -= 1
        sizes[empty] = 1
        owner[shards[largest][sizes[largest]]] = empty


def _group(owner: Indices, num_shards: int) -> list[Indices]:
    """The ascending sample indices of every owner 0..num_shards-1."""
    ends = np.cumsum(np.bincount(owner, minlength=num_shards))[:-1]
    return [part.astype(np.int64) for part in np.split(np.argsort(owner, kind="stable"), ends)]
