"""Augmentation: images as they might also have been drawn, another variant every time that one is trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def moved(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Each image moved by whole pixels, up or down and to a side, as far as chance says.

    Args:
        images: uint8 [N, H, W].
        max_shift: >= 0, pixels at most in either direction; all distances up to it are equally likely.
        generator: where chance comes from; 0 pixels take nothing of it.

    Returns:
        uint8 [N, H, W]; what moves in from outside is background (0).
    """
    if not max_shift:
        return images
    count, height, width = images.shape
    padded = F.pad(images, (max_shift,) * 4)
    views = padded.unfold(1, height, 1).unfold(2, width, 1)  # [N, 2 * max_shift + 1, 2 * max_shift + 1, H, W], no copy
    down, right = torch.randint(0, 2 * max_shift + 1, (2, count), generator=generator)
    return views[torch.arange(count), down, right]
