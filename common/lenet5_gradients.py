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
from common.pooled_convolution import PooledConvolution, keep_where_positive, pooled_side

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
        loss, gradients = of_one(images[None], labels[None])
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
        self._stages: dict[int, list[PooledConvolution]] = {}  # by number of images: batches are of two sizes at most

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mean losses [M] of ``images`` [M, B, 1, S, S] with ``labels`` (int64 [M, B]) and their gradients [M, …]."""
        slices = zip(images.split(SLICE, 1), labels.split(SLICE, 1), strict=True)
        (loss, gradients), *more = [self._share(*part, labels.shape[1]) for part in slices]
        for other_loss, others in more:
            loss += other_loss
            torch._foreach_add_(gradients, others)
        return loss, gradients

    def _share(self, images: Tensor, labels: Tensor, batch_size: int) -> tuple[Tensor, list[Tensor]]:
        """What some of a batch's images add to its mean loss and to the gradients."""
        first, second = self._stages_for(images.shape[1])
        h1 = first.forward(images.flatten(2).transpose(1, 2).contiguous())  # [M, 6 * 14 * 14, B], for images of 32x32
        h2 = second.forward(h1)  # [M, 16 * 5 * 5, B]
        loss, d2, of_linears = self._linear_layers(h2.transpose(1, 2).contiguous(), labels, batch_size)
        of_second = second.backward(d2.transpose(1, 2))
        of_first = first.backward(second.to_input(h1))
        return loss, of_first + of_second + of_linears

    def _stages_for(self, num_images: int) -> list[PooledConvolution]:
        if num_images not in self._stages:
            sides = self._side, pooled_side(self._side)
            pairs = zip(self._convolutions, sides, strict=True)
            self._stages[num_images] = [PooledConvolution(*layer, side, num_images) for layer, side in pairs]
        return self._stages[num_images]

    def _linear_layers(self, x: Tensor, labels: Tensor, batch_size: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The share in the losses, in the gradient of what ReLU took to give ``x`` [M, B, 400], and in the layers'."""
        *inner, last = self._linears
        inputs = [x]
        for layer in inner:
            inputs.append(_linear(inputs[-1], *layer).relu_())
        answer = F.log_softmax(_linear(inputs[-1], *last), dim=2)  # [M, B, 10]
        loss = answer.gather(2, labels[:, :, None]).sum((1, 2)).div_(-batch_size)
        d = answer.exp_()
        d.scatter_add_(2, labels[:, :, None], d.new_full((*labels.shape, 1), -1)).div_(batch_size)
        gradients: list[Tensor] = []
        for (weight, _), given in zip(reversed(self._linears), reversed(inputs), strict=True):
            gradients = [torch.bmm(d.transpose(1, 2), given), d.sum(1), *gradients]
            d = keep_where_positive(torch.bmm(d, weight), given)
        return loss, d, gradients


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
