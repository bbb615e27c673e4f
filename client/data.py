"""What a node trains on and what it holds out: its shard or its own images, read once and kept for the next task."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from common import mnist, shards
from common.errors import DataError, UsageError
from common.records import OWN_DATA, Task
from common.settings import DataSettings

Examples = tuple[Tensor, Tensor]  # images (uint8 [N, 28, 28]) and labels (int64 [N])


def load_data(task: Task, node_config: Mapping[str, object]) -> tuple[int, Examples, Examples]:
    """This node's shard number, what it trains on and what it holds out.

    Raises:
        DataError: there is no such data, or this machine divides the training set differently.
        UsageError: the shard does not exist.
    """
    settings = task.settings
    if own := node_config.get("data"):
        return OWN_DATA, *_own(str(own), settings.data.holdout, settings.seed)
    shard = shard_number(node_config)
    shards.check_shard(shard, settings.data.num_shards)
    division = _division(settings.data.model_dump_json(), settings.seed)
    return shard, *division.shard(shard, task.shard_digests[shard])


def shard_number(node_config: Mapping[str, object]) -> int:
    """Which shard the node config names.

    Raises:
        UsageError: none.
    """
    shard = node_config.get("partition-id")
    if type(shard) is not int or shard < 0:
        raise UsageError(
            f'a node config needs partition-id=N, the number of a shard, or data="PATH", got {shard!r:.40}'
        )
    return shard


@lru_cache(maxsize=1)
def own_images(path: str) -> mnist.Images:
    """A node's own images, read once; see ``common.own_data.load``."""
    from common import own_data  # here: Pillow is for own images alone

    return own_data.load(Path(path), max_examples=None)


class _Division:
    """The training set as one run divides it, and the shards that this process needed: together at most all of it."""

    def __init__(self, settings: DataSettings, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._indices = shards.partition(mnist.load_labels("train"), settings, seed)
        self._kept: dict[int, tuple[Examples, Examples]] = {}

    def shard(self, number: int, expected_digest: str) -> tuple[Examples, Examples]:
        indices = self._indices[number]
        if shards.digest(indices) != expected_digest:
            raise DataError(
                f"this machine divides the training set otherwise than the server: shard {number} is"
                f" {shards.digest(indices)} here, {expected_digest} there; use the same versions of Fedge and NumPy"
            )
        if number not in self._kept:
            part = mnist.load_part("train", indices)
            self._kept[number] = _divided(part, self._settings.holdout, self._seed, number)
        return self._kept[number]


@lru_cache(maxsize=1)  # all nodes of this process divide the data alike; the next run may do otherwise
def _division(data_settings: str, seed: int) -> _Division:
    return _Division(DataSettings.model_validate_json(data_settings), seed)


@lru_cache(maxsize=1)
def _own(path: str, holdout: float, seed: int) -> tuple[Examples, Examples]:
    return _divided(own_images(path), holdout, seed, OWN_DATA)


def _divided(part: mnist.Images, holdout: float, seed: int, shard: int) -> tuple[Examples, Examples]:
    """What to train on and what to hold out; without a holdout no copy is made."""
    if not holdout:
        return (part.images, part.labels), (part.images[:0], part.labels[:0])
    trained, held = map(torch.from_numpy, shards.hold_out(len(part), holdout, seed, shard))
    return (part.images[trained], part.labels[trained]), (part.images[held], part.labels[held])
