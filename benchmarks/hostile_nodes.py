"""What hostile nodes send in the place of an honest update: the attacks by name, as plain functions over changes.

A change is an update less the global model, all weights in one row: float64 [num_weights]. The nodes of a run work
together and know what the honest ones of their round send, as the strongest attacks in the papers do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

# Of the hostile nodes' own training [num_hostile, num_weights] and of the honest nodes' [num_honest, num_weights],
# with a source of chance: what the hostile ones send [num_hostile, num_weights].
Forge = Callable[[Tensor, Tensor, Generator], Tensor]

FLIPS = 10.0  # how many times its own change a sign flipper goes the other way
IDLE_NOISE = 1e-4  # standard deviation of what a free rider adds to every weight
LOUDNESS = 4.0  # length of the noise, in lengths of the node's own change: too short to be rejected by default
PULL = 2.0  # epsilon of the inner-product manipulation: short enough to pass all comparisons of length
DISGUISE = 1e-3  # how much sybils differ from each other, in lengths of what they send


@dataclass(frozen=True)
class Attack:
    """A name, how to forge updates, and whether the nodes' own training is on flipped labels."""

    title: str
    forge: Forge
    flips_labels: bool = False


def sign_flip(own: Tensor, honest: Tensor, chance: Generator) -> Tensor:
    """Ten times its own change, backwards (Li et al. 2019, RSA)."""
    del honest, chance
    return -FLIPS * own


def as_trained(own: Tensor, honest: Tensor, chance: Generator) -> Tensor:
    """What training gave: with flipped labels this is data poisoning (Tolpegin et al. 2020)."""
    del honest, chance
    return own


def free_rider(own: Tensor, honest: Tensor, chance: Generator) -> Tensor:
    """The global model and a breath of noise: it wants the model without the work (Lin et al. 2019)."""
    del honest
    return IDLE_NOISE * _noise(own, chance)


def scaled_noise(own: Tensor, honest: Tensor, chance: Generator) -> Tensor:
    """Gaussian noise, as in Blanchard et al. 2017, four times as long as its own change."""
    del honest
    return LOUDNESS * _as_long(_noise(own, chance), own.norm(dim=1))


def inner_product(own: Tensor, honest: Tensor, chance: Generator) -> Tensor:
    """Each the mean of the honest changes, backwards, times epsilon (Xie et al. 2019, Fall of Empires).

    They differ in noise that does not count, or they would be set aside as copies.
    """
    return _disguised((-PULL * honest.mean(dim=0)).expand_as(own), chance)


def sybils(own: Tensor, honest: Tensor, chance: Generator) -> Tensor:
    """Each the mean of what they learned, as long as honest changes are (Fung et al. 2020, FoolsGold).

    So they are nearer to each other than honest nodes are.
    """
    together = own.mean(dim=0).expand_as(own)
    return _disguised(_as_long(together, honest.norm(dim=1).mean().expand(len(own))), chance)


ATTACKS = {
    "sign-flip": Attack("sign flip × 10", sign_flip),
    "label-flip": Attack("label flip", as_trained, flips_labels=True),
    "free-rider": Attack("free rider", free_rider),
    "scaled-noise": Attack("scaled noise", scaled_noise),
    "inner-product": Attack("inner product", inner_product),
    "sybils": Attack("sybils", sybils, flips_labels=True),
}


def _noise(like: Tensor, chance: Generator) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=chance)


def _as_long(changes: Tensor, lengths: Tensor) -> Tensor:
    """``changes`` with these lengths [num_hostile]; one that is no change at all stays none."""
    shares: Tensor = lengths / changes.norm(dim=1).clamp(min=torch.finfo(changes.dtype).tiny)
    return changes * shares.unsqueeze(1)


def _disguised(changes: Tensor, chance: Generator) -> Tensor:
    return changes + _as_long(_noise(changes, chance), DISGUISE * changes.norm(dim=1))
