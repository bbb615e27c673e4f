"""Rule: a photo of a digit becomes light strokes on black, scaled and placed as MNIST does, or a sentence."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from common import mnist_bundle
from common.errors import DataError
from common.photographs import centred, read_digit


def save(path: Path, pixels: npt.NDArray[np.generic] | Image.Image) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path)
    return path


def bar(height: int = 120, width: int = 100) -> npt.NDArray[np.uint8]:
    """A dark upright bar, 60x15 pixels, on white paper, away from the middle."""
    pixels = np.full((height, width), 255, dtype=np.uint8)
    pixels[10:70, 60:75] = 0
    return pixels


# 60x15 pixels become 20x5; pixel 14 lies in their middle (9.5 and 2 from their corner: 4.5 becomes 5, and 12).
BAR = np.zeros((28, 28), dtype=np.uint8)
BAR[5:25, 12:17] = 255


def difference(found: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> float:
    """Mean absolute difference in grey levels over the pixels that are not black in both."""
    either = (found > 0) | (expected > 0)
    return float(np.abs(found.astype(int) - expected)[either].mean())


@pytest.fixture(scope="module")
def digits() -> npt.NDArray[np.uint8]:
    return mnist_bundle.read("test")[0][:20]


def test_a_digit_is_scaled_to_20_pixels_and_its_mass_put_on_pixel_14() -> None:
    strokes = bar() == 0
    assert np.array_equal(centred(strokes.astype(np.float32)), BAR)


def test_a_heavy_side_pulls_a_digit_to_the_other() -> None:
    strokes = np.zeros((40, 40), dtype=np.float32)
    strokes[:, 0:20] = 1.0
    strokes[0:2, 20:40] = 1.0  # becomes 20x20: rows 0..19, the left half full and one row on
    found = centred(strokes)
    # Along x: 20 rows of columns 0..9 and one row of columns 10..19: (200*4.5 + 10*14.5) / 210 = 4.98; 14 - 4.98 = 9,
    # but the box ends at 28: column 8 is the last to begin at.
    assert np.flatnonzero(found.max(axis=0)).tolist() == list(range(8, 28))


def test_dark_on_light_and_light_on_dark_are_the_same(tmp_path: Path) -> None:
    dark = read_digit(save(tmp_path / "dark.png", bar()))
    light = read_digit(save(tmp_path / "light.png", 255 - bar()))
    assert np.array_equal(dark, light)
    assert difference(dark, BAR) < 12


def test_light_that_falls_from_one_side_makes_no_strokes(tmp_path: Path) -> None:
    y, x = np.mgrid[:120, :100]
    shade = np.clip(120 + x + y / 4 - (255 - bar().astype(int)) * 0.4, 0, 255).astype(np.uint8)
    found = read_digit(save(tmp_path / "shade.png", shade))
    assert difference(found, BAR) < 12


def test_a_few_specks_change_nothing(tmp_path: Path) -> None:
    pixels = bar()
    pixels[100, 5] = pixels[90, 40] = 0
    clean, specked = save(tmp_path / "clean.png", bar()), save(tmp_path / "specked.png", pixels)
    assert np.array_equal(read_digit(clean), read_digit(specked))


def test_colour_transparency_and_16_bits_are_read(tmp_path: Path) -> None:
    expected = read_digit(save(tmp_path / "grey.png", bar()))
    colour = Image.fromarray(bar()).convert("RGB")
    see_through = Image.new("RGBA", (100, 120), (0, 0, 0, 0))
    see_through.paste((0, 0, 0, 255), (60, 10, 75, 70))
    deep = bar().astype(np.uint16) * 200
    for image in (colour, see_through, deep):
        assert np.array_equal(read_digit(save(tmp_path / "other.png", image)), expected)


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    upright = read_digit(save(tmp_path / "upright.png", bar()))
    Image.fromarray(np.rot90(bar()).copy()).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_digit(tmp_path / "turned.png"), upright)


def test_images_of_mnist_stay_as_they_are(tmp_path: Path, digits: npt.NDArray[np.uint8]) -> None:
    for digit in digits:
        assert np.array_equal(read_digit(save(tmp_path / "digit.png", digit)), digit)


@pytest.mark.parametrize("side", [28, 90, 700])
def test_a_photo_of_an_mnist_digit_comes_back_as_that_digit(
    side: int, tmp_path: Path, digits: npt.NDArray[np.uint8]
) -> None:
    differences = []
    for digit in digits:
        paper = Image.new("L", (side + 60, side + 90), 230)
        drawn = Image.fromarray(230 - (digit * 0.8).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        paper.paste(drawn, (50, 15))
        found = read_digit(save(tmp_path / "photo.png", paper))
        differences.append(np.abs(found.astype(int) - digit).mean())
    assert np.mean(differences) < 9  # of 255; 17 if every digit were shifted by one pixel


def test_an_image_of_one_grey_shows_nothing(tmp_path: Path) -> None:
    for level in (0, 128, 255):
        path = save(tmp_path / "blank.png", np.full((50, 40), level, dtype=np.uint8))
        with pytest.raises(DataError, match=r"blank.png shows no digit: nothing in it differs by 25 of 255"):
            read_digit(path)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.png", np.random.RandomState(0).randint(0, 256, (90, 90)).astype(np.uint8))
    (tmp_path / "text.jpg").write_text("seven")
    (tmp_path / "torn.png").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "empty.png").touch()
    for name in ("text.jpg", "torn.png", "empty.png"):
        with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path / name))} is no image that can be read$"):
            read_digit(tmp_path / name)
    with pytest.raises(DataError, match=r"none.png does not exist$"):
        read_digit(tmp_path / "none.png")


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = save(tmp_path / "huge.png", Image.new("1", (20_000, 6_000)))
    with pytest.raises(DataError, match=r"huge.png has 20000x6000 pixels, at most 100,000,000 are read$"):
        read_digit(path)


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (2, 3)])
def test_odd_shapes_end_in_an_image_or_a_sentence(shape: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.zeros(shape, dtype=np.uint8)
    pixels[0, 0] = 255
    path = save(tmp_path / "odd.png", pixels)
    try:
        assert read_digit(path).shape == (28, 28)
    except DataError as error:
        assert "shows no digit" in str(error)  # noqa: PT017  # either will do
