"""Laying pictures out: larger pixels, rows and columns, words.

TensorBoard shows every picture 350 pixels wide, without smoothing: one with small words needs just this width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from server.pictures.colours import Picture

PAPER = 255  # white
DARK, PALE = "#202124", "#5f6368"  # of words


def enlarged(picture: Picture, times: int) -> Picture:
    """``picture`` with every pixel as a square of ``times`` x ``times``."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def in_columns(pictures: Sequence[Picture], columns: int, gap: int = 2) -> Picture:
    """``pictures``, all of one size, row by row with ``columns`` in each; paper between them."""
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), PAPER, dtype=np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def beside(left: Picture, right: Picture, gap: int = 8) -> Picture:
    """Two pictures in a row, the lower one in the middle of the height; paper around it."""
    height = max(len(left), len(right))
    space = np.full((height, gap, 3), PAPER, dtype=np.uint8)
    return np.concatenate([_as_high(left, height), space, _as_high(right, height)], axis=1)


def framed(picture: Picture, margin: int = 8) -> Picture:
    """``picture`` with paper around it."""
    return np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), constant_values=PAPER)


class Words:
    """Writes on a picture; ``picture`` is the result."""

    def __init__(self, picture: Picture) -> None:
        self._image = Image.fromarray(picture)
        self._draw = ImageDraw.Draw(self._image)

    def at(self, x: float, y: float, text: str, size: float = 11, ink: str = DARK) -> None:
        """Write ``text`` in the middle of (``x``, ``y``), ``size`` pixels high."""
        self._draw.text((x, y), text, fill=ink, font=_font(size), anchor="mm")

    @property
    def picture(self) -> Picture:
        """What was given, with the words on it."""
        return np.array(self._image)


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # comes with Pillow: nothing to look for on the machine


def _as_high(picture: Picture, height: int) -> Picture:
    above = (height - len(picture)) // 2
    return np.pad(picture, ((above, height - len(picture) - above), (0, 0), (0, 0)), constant_values=PAPER)
