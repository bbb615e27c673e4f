"""Rule: an image is moved whole, within the distance asked for, every way alike, and nothing comes in but black."""

from collections import Counter

import pytest
import torch

from common.augmentation import moved


def dot(row: int, column: int, side: int = 5) -> torch.Tensor:
    """One lit pixel of 200."""
    image = torch.zeros(side, side, dtype=torch.uint8)
    image[row, column] = 200
    return image


def chance(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_dot_comes_out_within_one_pixel_and_every_place_is_as_likely() -> None:
    many = dot(2, 2).expand(9000, -1, -1)
    places = Counter(tuple(image.nonzero()[0].tolist()) for image in moved(many, 1, chance()))
    assert set(places) == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    assert all(850 < count < 1150 for count in places.values())  # 1000 expected, 5 standard deviations are 149


def test_what_is_moved_over_the_edge_is_gone_and_background_comes_in() -> None:
    sums = {int(image.sum()) for image in moved(dot(0, 0).expand(50, -1, -1), 2, chance())}
    assert sums == {0, 200}


def test_images_are_moved_whole_and_each_its_own_way() -> None:
    pair = torch.stack([dot(2, 2), dot(2, 2)])
    pair[:, 3, 2] = 100  # below the dot
    out = moved(pair.repeat(20, 1, 1), 1, chance())
    assert out.shape == (40, 5, 5)
    assert out.dtype == torch.uint8
    for image in out:
        [[row, column]] = (image == 200).nonzero().tolist()
        assert image[row + 1, column] == 100
    assert len({tuple(image.flatten().tolist()) for image in out}) > 5


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_chance_moves_the_same_way(seed: int) -> None:
    images = torch.randint(0, 256, (30, 28, 28), generator=chance(9)).to(torch.uint8)
    assert torch.equal(moved(images, 2, chance(seed)), moved(images, 2, chance(seed)))
    assert not torch.equal(moved(images, 2, chance(seed)), moved(images, 2, chance(seed + 1)))


def test_without_a_shift_images_stay_and_no_chance_is_used() -> None:
    images, generator = dot(1, 1)[None], chance()
    before = generator.get_state()
    assert moved(images, 0, generator) is images
    assert torch.equal(generator.get_state(), before)
