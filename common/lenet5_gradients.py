"""LeNet-5's loss and gradients by hand, in a few large matrix products: autograd's numbers, sooner.

Autograd runs some hundred small operations a step, and on small batches the calls cost more than the arithmetic. The
sums here have another order than autograd's, so results differ from its own in the last bits. Several models can be
worked on at once (``common.fit_together``), each on a batch of its own.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from common.models import LeNet5, LeNet5On28, Network
from common.pooled_convolution import (
    Overlap,
    PooledConvolution,
    every_fourth,
    keep_where_positive,
    pooled_side,
    windows_of_images,
    windows_of_pooled,
)
from common.products import product

Gradients = Callable[[Tensor, Tensor], tuple[Tensor, list[Tensor]]]

SLICE = 128  # examples worked on at once: their intermediate results take 20 MB, and slices of 32 or 64 cost time


def by_hand(model: Network) -> Gradients | None:
    """The loss and gradients of ``model`` if this file knows its network; depends on nothing else.

    Returns:
        From prepared images [B, 1, S, S] and labels (int64 [B]) to the mean loss and its gradients at the weights that
        ``model`` has when it is called, in the order and shapes of its parameters.
    """
    if not is_known(model):
        return None
    of_one = LeNet5Gradients([parameter.detach()[None] for parameter in model.parameters()], model.input_size)

    def gradients_of(images: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        loss, gradients = of_one([images], labels[None])
        return loss[0], [gradient[0] for gradient in gradients]

    return gradients_of


def is_known(model: Network) -> bool:
    """Whether this file knows how the network of ``model`` computes."""
    return type(model) in (LeNet5, LeNet5On28)


class LeNet5Gradients:
    """Forward and backward pass of two convolutions and three linear layers with ReLU, and cross-entropy, M times."""

    def __init__(self, parameters: Sequence[Tensor], side: int) -> None:
        """Args: parameters: those of a ``LeNet5`` or ``LeNet5On28``, each [M, …] for M models; side: S, of images."""
        self._side = side
        pairs = list(zip(parameters[::2], parameters[1::2], strict=True))  # weights and biases
        self._convolutions, self._linears = pairs[:2], pairs[2:]
        self._passes: dict[int, _Convolutions] = {}  # by number of images: batches are of two sizes at most

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mean losses [M] of M ``images`` [B, 1, S, S] with ``labels`` (int64 [M, B]) and their gradients [M, …]."""
        slices = zip(zip(*(own.split(SLICE) for own in images), strict=True), labels.split(SLICE, 1), strict=True)
        (loss, gradients), *more = [self._share(*part, labels.shape[1]) for part in slices]
        for other_loss, others in more:
            loss += other_loss
            torch._foreach_add_(gradients, others)
        return loss, gradients

    def _share(self, images: Sequence[Tensor], labels: Tensor, batch_size: int) -> tuple[Tensor, list[Tensor]]:
        """What some of a batch's images add to its mean loss and to the gradients."""
        num_images = labels.shape[1]
        if num_images not in self._passes:
            self._passes[num_images] = _Convolutions(self._convolutions, self._side, num_images)
        convolutions = self._passes[num_images]
        x = convolutions.forward(images)
        loss, d, of_linears = self._linear_layers(x, labels, batch_size)
        return loss, convolutions.backward(d) + of_linears

    def _linear_layers(self, x: Tensor, labels: Tensor, batch_size: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The share in the losses, in the gradient of ``x`` [M, B, 400], and in the layers'."""
        *inner, last = self._linears
        inputs = [x]
        for layer in inner:
            inputs.append(_linear(inputs[-1], *layer).relu_())
        answer, right = F.log_softmax(_linear(inputs[-1], *last), dim=2), labels[:, :, None]  # [M, B, 10], [M, B, 1]
        loss = answer.gather(2, right).sum((1, 2)).div_(-batch_size)
        d = answer.exp_().scatter_(2, right, -1, reduce="add").div_(batch_size)
        gradients: list[Tensor] = []
        for (weight, _), given in zip(reversed(self._linears), reversed(inputs), strict=True):
            gradients = [product(d.transpose(1, 2), given), d.sum(1), *gradients]
            d = product(d, weight)
            if given is not x:
                d = keep_where_positive(d, given)
        return loss, d, gradients


class _Convolutions:
    """Both convolutions, on so many images."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], side: int, num_images: int) -> None:
        one, other = layers
        pixels = one[0].new_empty(len(one[0]), side**2, num_images)
        self._pixels = pixels.unbind()
        self._columns = every_fourth(pixels.view(-1, side, side, num_images))
        self._images = one[0].new_empty(self._columns.shape)
        self._first = PooledConvolution(*one, windows_of_images(self._images))
        windows = windows_of_pooled(self._first.output, pooled_side(side))
        self._second = PooledConvolution(*other, windows)
        self._to_pixels = Overlap(windows)
        features = self._second.output.view(len(one[0]), -1, num_images)
        self._features, self._d = features.transpose(1, 2), torch.empty_like(features)

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """``images``, M times [B, 1, S, S], to features [M, B, 400], which live until the next call."""
        for pixels, own in zip(self._pixels, images, strict=True):
            pixels.copy_(own.flatten(1).t())
        self._images.copy_(self._columns)
        self._first.forward()
        self._second.forward()
        return self._features

    def backward(self, d: Tensor) -> list[Tensor]:
        """Gradients of all weights and biases from ``d``, that of the result of ``forward``."""
        d2 = self._d.copy_(d.transpose(1, 2)).view(self._second.output.shape)
        of_second = self._second.backward(keep_where_positive(d2, self._second.output))
        d1 = self._to_pixels(self._second.to_windows())
        of_first = self._first.backward(keep_where_positive(d1, self._first.output))
        return of_first + of_second


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return product(x, weight.transpose(1, 2)).add_(bias[:, None])
