"""From a digit's bytes to what the network reads."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import torch.nn.functional as F
from torch import Tensor

from common.models import MODELS

if TYPE_CHECKING:
    from common.settings import ModelSettings, PreprocessingSettings

SIDE = 28  # pixels of a digit
Transform = Literal["none", "pad", "bilinear"]


@dataclass(frozen=True)
class Preprocessing:
    """One way to prepare digits; ``best.json`` holds it, so that whoever loads the model can repeat it.

    Attributes:
        transform: how 28x28 pixels become ``size``: not at all, padded with background, or resized.
        size: pixels on a side of what the network reads, >= 28.
        mean, std: what is subtracted from values in 0..1, and what the rest is divided by (not 0).
    """

    transform: Transform
    size: int
    mean: float
    std: float

    @classmethod
    def of(cls, model: ModelSettings, settings: PreprocessingSettings) -> Self:
        """What the settings come to for their network: one that takes 28x28 gets the digits as they are."""
        size = MODELS[model.name].input_size
        return cls("none" if size == SIDE else settings.resize, size, settings.mean, settings.std)

    @classmethod
    def from_description(cls, description: object) -> Self:
        """What ``description`` gave.

        Raises:
            ValueError: it is nothing that ``description`` gives; the text says what.
        """
        if not isinstance(description, dict) or set(description) != {"transform", "size", "mean", "std"}:
            got = ", ".join(description) or "nothing" if isinstance(description, dict) else f"{description!r:.40}"
            raise ValueError(f"expected transform, size, mean and std, got {got}")
        transform, size = description["transform"], description["size"]
        if transform not in list(get_args(Transform)):
            raise ValueError(f"transform must be {', '.join(get_args(Transform))}, got {transform!r:.40}")
        mean, std = (_number(key, description[key]) for key in ("mean", "std"))
        if std == 0:
            raise ValueError("std must not be 0")
        fits = size == SIDE if transform == "none" else type(size) is int and SIDE <= size <= 10 * SIDE
        if not fits or (transform == "pad" and size % 2):
            raise ValueError(f"transform {transform} cannot make {SIDE} pixels {size!r:.20}")
        return cls(transform, size, mean, std)

    def description(self) -> dict[str, Any]:
        """What ``best.json`` says of the preprocessing."""
        return asdict(self)

    def prepare(self, images: Tensor) -> Tensor:
        """Bring digits to the network's size and normalise them.

        Args:
            images: uint8 [N, 28, 28].

        Returns:
            float32 [N, 1, size, size].
        """
        x = images.unsqueeze(1)
        if self.transform == "pad":
            x = F.pad(x, ((self.size - SIDE) // 2,) * 4)
        x = x.float()
        if self.transform == "bilinear":  # as Pillow and torchvision resize upwards, less their rounding
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return x.div_(255).sub_(self.mean).div_(self.std)


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} must be a number, got {value!r:.40}")
    return float(value)
