"""From a photo of a digit to an image like MNIST's: light strokes on black, centred as MNIST centres them.

MNIST's own recipe (LeCun et al. 1998): the digit is scaled to fit a box of 20x20 pixels, its shape
kept, and put into 28x28 pixels with its centre of mass in the middle.
"""

import math
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps

from common.errors import DataError

Grey = npt.NDArray[np.float32]

_SIDE, _BOX = 28, 20  # pixels of the image and of the digit in it
_WORKING_SIDE = 256  # a photo is made this small first: strokes stay wide, noise goes
_SMOOTH = Image.Resampling.BILINEAR  # where a tiny digit must grow
_MAX_PIXELS = 100_000_000  # of a photo, read from its header before memory is taken
_MIN_CONTRAST = 25.0  # grey levels of 255 that ink must differ from its ground by
# What Pillow raises for damaged or hostile files.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, TypeError, OverflowError, MemoryError, KeyError)


def read_digit(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image file of one digit, in any format that Pillow knows.

    Greyscale of 28x28 that is dark all around is taken to be like MNIST already, and stays as it is.

    Returns:
        uint8 [28, 28], light strokes on black.

    Raises:
        DataError: the file is missing, is no image, is too large or shows nothing; it is named.
    """
    image = _open(path)
    pixels = np.asarray(image)
    if pixels.shape == (_SIDE, _SIDE) and _border(pixels.astype(np.float32)).max() < _MIN_CONTRAST <= pixels.max():
        return pixels
    try:
        return centred(ink(image))
    except ValueError as error:
        raise DataError(f"{path} {error}") from None


def ink(image: Image.Image) -> Grey:
    """How much each pixel stands out from the ground, whichever of the two is darker.

    The ground is a plane through the grey levels along the border, so that light may fall from one side.

    Args:
        image: mode L, any size.

    Returns:
        float32 [H, W] in 0..1, both at most 256; 0 is ground.

    Raises:
        ValueError: nothing stands out.
    """
    small = image.copy()
    small.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BOX)
    levels = np.asarray(small, dtype=np.float32)
    above = levels - _ground(levels)
    if max(above.max(), -above.min()) < _MIN_CONTRAST:
        raise ValueError(f"shows no digit: nothing in it differs by {_MIN_CONTRAST:g} of 255 grey levels from the rest")
    standing_out = np.clip(above if above.max() > -above.min() else -above, 0, None)
    threshold = _between(standing_out)
    full = np.median(standing_out[standing_out > threshold])  # of strokes: their middle, not their brightest spot
    low = threshold / 2
    return np.asarray(np.clip((standing_out - low) / (full - low), 0, 1), dtype=np.float32)


def centred(strokes: Grey) -> npt.NDArray[np.uint8]:
    """Scale and place a digit as MNIST does.

    Args:
        strokes: float32 [H, W] in 0..1, not all 0.

    Returns:
        uint8 [28, 28], its brightest pixel 255.
    """
    digit = _trimmed(strokes)
    scale = _BOX / max(digit.shape)
    height, width = (max(1, round(side * scale)) for side in digit.shape)
    resized = Image.fromarray(digit).resize((width, height), Image.Resampling.BOX if scale < 1 else _SMOOTH)
    small = np.asarray(resized, dtype=np.float32)
    top, left = (_offset(small.sum(axis=1 - axis)) for axis in (0, 1))
    placed = np.zeros((_SIDE, _SIDE), dtype=np.float32)
    placed[top : top + height, left : left + width] = small
    return np.asarray(np.rint(placed * (255 / placed.max())), dtype=np.uint8)


def _open(path: Path) -> Image.Image:
    """The image in greyscale, upright, on white where it is transparent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is checked here
            with Image.open(path) as opened:
                _check_size(path, opened)
                opened.draft("L", (_WORKING_SIDE, _WORKING_SIDE))  # lets JPEG skip detail that would go anyway
                image = ImageOps.exif_transpose(opened)
                if image.has_transparency_data:
                    image = image.convert("RGBA")
                    ground = Image.new("RGBA", image.size, "white")
                    image = Image.alpha_composite(ground, image)
                return _to_grey(image)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except PermissionError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (*_DAMAGE, Image.DecompressionBombError):
        raise DataError(f"{path} is no image that can be read") from None


def _check_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise DataError(f"{path} has {image.width}x{image.height} pixels, at most {_MAX_PIXELS:,} are read")


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits: Pillow would clip them at 255
        levels = np.asarray(image, dtype=np.float64)
        lowest, highest = levels.min(), levels.max()
        return Image.fromarray(np.rint((levels - lowest) * (255 / max(highest - lowest, 1e-9))).astype(np.uint8))
    return image.convert("L")


def _border(levels: Grey) -> Grey:
    return np.concatenate([levels[0], levels[-1], levels[1:-1, 0], levels[1:-1, -1]])


def _ground(levels: Grey) -> Grey:
    """The plane that fits the border best in the least squares."""
    height, width = levels.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    plane = np.stack([np.ones_like(x), x / max(1, width), y / max(1, height)], axis=-1)  # [H, W, 3]
    border = np.stack([_border(plane[..., term]) for term in range(3)], axis=-1)
    weights = np.linalg.lstsq(border, _border(levels), rcond=None)[0]
    return np.asarray(plane @ weights, dtype=np.float32)


def _between(values: Grey) -> float:
    """The threshold that parts values best in two kinds (Otsu 1979), out of 64 between 0 and their maximum."""
    counts, edges = np.histogram(values, bins=64)
    middles = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    above = counts.sum() - below
    means_apart = total / np.maximum(below, 1) - ((counts * middles).sum() - total) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * means_apart**2)])


def _trimmed(strokes: Grey) -> Grey:
    """Just the digit: specks that a median of 3x3 pixels takes away do not count, unless it takes all."""
    strong = Image.fromarray(strokes > 0.5).convert("L")
    around = strong.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.MaxFilter(3)).getbbox()
    left, top, right, bottom = around or (0, 0, *strong.size)
    inner = strong.crop((left, top, right, bottom)).getbbox()
    assert inner is not None, "a median leaves nothing where nothing was"
    return strokes[top:bottom, left:right][inner[1] : inner[3], inner[0] : inner[2]]


def _offset(mass: Grey) -> int:
    """Where a digit with ``mass`` [n] along one axis begins, so that its centre of mass lies on pixel 14.

    That is half a pixel past the middle, and where the first 2,000 test images have it: at 13.99 and 14.00 in the mean.
    """
    centre = float((np.arange(len(mass)) * mass).sum() / mass.sum())
    nearest = math.floor(_SIDE / 2 - centre + 0.501)  # a digit as heavy on both sides is a tie: always the same way
    return min(max(nearest, 0), _SIDE - len(mass))
