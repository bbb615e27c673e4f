"""Rule: digits come to the network's size and scale in one way, which a description can repeat."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.layers import from_assignments, load
from common.preprocessing import Preprocessing


def of(*assignments: str) -> Preprocessing:
    settings = load(from_assignments(assignments))
    return Preprocessing.of(settings.model, settings.preprocessing)


def noise(num_images: int) -> torch.Tensor:
    return torch.randint(0, 256, (num_images, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_by_default_an_image_is_padded_and_normalised() -> None:
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 0, 0] = 255
    ready = of().prepare(image)
    assert ready.shape == (1, 1, 32, 32)
    assert ready.dtype == torch.float32
    black, white = (0 - 0.1307) / 0.3081, (1 - 0.1307) / 0.3081
    assert ready[0, 0, 0, 0].item() == pytest.approx(black)
    assert ready[0, 0, 1, 1].item() == pytest.approx(black)
    assert ready[0, 0, 2, 2].item() == pytest.approx(white)
    assert of().description() == {"transform": "pad", "size": 32, "mean": 0.1307, "std": 0.3081}


@pytest.mark.parametrize("resize", ["pad", "bilinear"])
def test_a_network_that_takes_28x28_gets_digits_as_they_are(resize: str) -> None:
    found = of("model.name=mlp", f"preprocessing.resize={resize}", "preprocessing.mean=0", "preprocessing.std=0.5")
    assert found == Preprocessing("none", 28, 0.0, 0.5)
    images = noise(2)
    torch.testing.assert_close(found.prepare(images), images.unsqueeze(1).float() / 255 / 0.5)


def test_resizing_is_pillows_less_its_rounding() -> None:
    images = noise(3)
    ready = of("preprocessing.resize=bilinear", "preprocessing.mean=0", "preprocessing.std=1").prepare(images)
    assert ready.shape == (3, 1, 32, 32)
    for image, mine in zip(images, ready, strict=True):
        theirs = np.asarray(Image.fromarray(image.numpy()).resize((32, 32), Image.Resampling.BILINEAR))
        assert np.abs(mine[0].numpy() * 255 - theirs).max() <= 1.01  # Pillow rounds twice


def test_images_are_left_as_they_are() -> None:
    for assignments in ([], ["preprocessing.resize=bilinear"], ["model.name=cnn"]):
        images = noise(1)
        of(*assignments).prepare(images)
        assert torch.equal(images, noise(1))


@pytest.mark.parametrize(
    "assignments", [[], ["preprocessing.resize=bilinear", "preprocessing.mean=0.5"], ["model.name=lenet5-28"]]
)
def test_a_description_repeats_it(assignments: list[str]) -> None:
    described = json.loads(json.dumps(of(*assignments).description()))
    assert Preprocessing.from_description(described) == of(*assignments)


GOOD = {"transform": "pad", "size": 32, "mean": 0.1307, "std": 0.3081}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({}, "expected transform, size, mean and std, got nothing"),
        (GOOD | {"crop": 1}, "expected transform, size, mean and std, got transform, size, mean, std, crop"),
        (GOOD | {"transform": "crop"}, "transform must be none, pad, bilinear, got 'crop'"),
        (GOOD | {"transform": ["pad"]}, "transform must be none, pad, bilinear, got ['pad']"),
        (GOOD | {"size": 31}, "transform pad cannot make 28 pixels 31"),
        (GOOD | {"size": "32"}, "transform pad cannot make 28 pixels '32'"),
        (GOOD | {"transform": "none"}, "transform none cannot make 28 pixels 32"),
        (GOOD | {"size": 10**6}, "transform pad cannot make 28 pixels 1000000"),
        (GOOD | {"mean": "dark"}, "mean must be a number, got 'dark'"),
        (GOOD | {"std": math.nan}, "std must be a number, got nan"),
        (GOOD | {"std": 0}, "std must not be 0"),
    ],
)
def test_a_description_of_another_form_is_named(description: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        Preprocessing.from_description(description)
    assert str(error.value) == message
