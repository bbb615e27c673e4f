"""What a network's first layer looks for, and what its convolutions make of digits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from common.models import Network
from common.training import Prepare
from server.pictures.colours import Picture, grey, signed
from server.pictures.sheet import beside, enlarged, framed, in_columns

ROW = 56  # pixels: the height of a digit beside its feature maps, twice its own
MOST_IN_A_LINE = 32  # maps; more go into several lines


def first_filters(model: Network) -> tuple[str, Picture]:
    """The weights of the first layer, one square a unit: red where a pixel speaks for it, blue where against.

    Returns:
        The layer's name and the picture. Each unit has a scale of its own. A linear layer's weights are laid out as
        the image that it reads.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            return name, _filters(layer.weight.flatten(0, 1))  # [out x in, k, k], and one channel comes in
        if isinstance(layer, nn.Linear):
            return name, _filters(layer.weight.unflatten(1, (model.input_size, model.input_size)))
    raise AssertionError("every network of Fedge has a layer")


def one_of_each(labels: Tensor) -> Tensor:
    """Where the first example of each digit is that there is: int64 [up to 10], by digit; ``labels`` int64 [N]."""
    return torch.stack([(labels == digit).nonzero()[0, 0] for digit in labels.unique()])


def feature_maps(model: Network, images: Tensor, prepare: Prepare) -> Iterator[tuple[str, Picture]]:
    """For every convolution its name, and what it answers to each of ``images`` (uint8 [N, 28, 28], N >= 1).

    A row is an image and its maps, before the activation: red is above zero, blue below. Each map has a scale of
    its own that is the same in all rows.
    """
    for name, maps in _answers_of_convolutions(model, prepare(images)).items():  # [N, C, H, W]
        tiles = [signed(one_map) for one_map in maps.unbind(dim=1)]  # C times [N, H, W, 3]
        rows = [_row(image, [tile[row] for tile in tiles]) for row, image in enumerate(grey(images))]
        yield name, framed(in_columns(rows, columns=1, gap=4))


@torch.no_grad()
def _answers_of_convolutions(model: Network, inputs: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d):
                hook = layer.register_forward_hook(lambda _, __, answer, name=name: found.update({name: answer}))
                hooks.callback(hook.remove)
        model.eval()
        model(inputs)
    return found


def _row(digit: Picture, maps: Sequence[Picture]) -> Picture:
    lines = -(-len(maps) // MOST_IN_A_LINE)
    times = max(1, ROW // lines // len(maps[0]))
    drawn = in_columns([enlarged(one_map, times) for one_map in maps], columns=-(-len(maps) // lines))
    return beside(enlarged(digit, ROW // len(digit)), drawn)


def _filters(weights: Tensor) -> Picture:
    """``weights`` [units, k, k]."""
    side, columns = (84, 8) if len(weights) <= 16 else (ROW, 10)
    times = max(1, side // weights.shape[1])
    drawn = [enlarged(signed(unit), times) for unit in weights]
    return framed(in_columns(drawn, columns=min(columns, len(drawn)), gap=4))
