"""From numbers to colours: scales as tables of RGB values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

Picture = npt.NDArray[np.uint8]  # [height, width, 3], RGB
Floats = npt.NDArray[np.floating]
LENGTH = 255  # of a scale; odd, so that it has a middle


def scale(*hex_colours: str) -> Picture:
    """A scale [255, 3] that runs evenly through ``hex_colours`` (``rrggbb``, two or more)."""
    stops = np.array([tuple(bytes.fromhex(colour)) for colour in hex_colours], dtype=float)  # [stops, 3]
    at = np.linspace(0, len(stops) - 1, LENGTH)
    channels = [np.interp(at, range(len(stops)), channel) for channel in stops.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


# ColorBrewer 2.0 (Harrower & Brewer 2003): RdBu turned round, Blues, Oranges. Told apart by the colour-blind too.
SIGNED = scale("053061", "2166ac", "4393c3", "92c5de", "f7f7f7", "f4a582", "d6604d", "b2182b", "67001f")
BLUES = scale("ffffff", "c6dbef", "6baed6", "2171b5", "08306b")
ORANGES = scale("ffffff", "fdd0a2", "fd8d3c", "d94801")


def coloured(shares: Floats, colours: Picture) -> Picture:
    """RGB [..., 3] of ``shares`` [...], 0..1 along the scale ``colours``; what is beyond takes its end."""
    known = np.nan_to_num(shares, nan=0.0, posinf=1.0, neginf=0.0)  # a diverged model is drawn as well
    return colours[(np.clip(known, 0, 1) * (LENGTH - 1)).round().astype(np.intp)]


def signed(values: Tensor) -> Picture:
    """RGB [..., 3] of ``values`` (float [...]): blue below zero, white at zero, red above.

    The value farthest from zero has the full colour, so all that is to be compared goes through one call.
    """
    finite = np.nan_to_num(values.detach().double().numpy(), posinf=0.0, neginf=0.0)
    farthest = float(np.abs(finite).max(initial=0.0)) or 1.0
    return coloured(finite / farthest / 2 + 0.5, SIGNED)


def grey(pixels: Tensor) -> Picture:
    """RGB [..., 3] of ``pixels`` (uint8 [...]) as ink on paper: 0 is white, 255 is black."""
    return np.repeat(255 - pixels.numpy()[..., np.newaxis], 3, axis=-1)
