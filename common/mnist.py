"""MNIST as uint8 tensors, whole or one shard of it, cheap to read again.

The first read on a machine fills a cache (``common.mnist_cache``). Later reads map that, import no
torchvision (1.3 s and 83 MB) and keep in memory only what they select.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from common.mnist_bundle import Split, Uint8Array
from common.mnist_cache import open_arrays, read_images


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled greyscale images: ``images`` uint8 [N, 28, 28], ``labels`` int64 [N], each 0..9."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """The number of images, N."""
        return len(self.labels)


def load(split: Split) -> Images:
    """All images of ``split``: 60,000 of ``train``, 10,000 of ``test``, in the order of the files.

    Raises:
        DataError: the bundle is damaged or cannot be had, or the state folder cannot hold it.
    """
    images, labels = open_arrays(split)
    return as_images(np.array(images), labels)


def load_part(split: Split, indices: npt.NDArray[np.int64]) -> Images:
    """The images of ``split`` at ``indices`` (int64 [M], each 0..N-1); only these are kept in memory.

    Raises:
        DataError: as for ``load``.
    """
    return as_images(read_images(split, indices), open_arrays(split)[1][indices])


def load_labels(split: Split) -> Uint8Array:
    """The labels of ``split``, uint8 [N], each 0..9: all that dividing it into shards needs.

    Raises:
        DataError: as for ``load``.
    """
    return np.array(open_arrays(split)[1])


def as_images(images: Uint8Array, labels: npt.NDArray[np.integer]) -> Images:
    """Tensors that share the memory of ``images`` (uint8 [N, 28, 28], writable) and copy ``labels`` ([N])."""
    return Images(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))
