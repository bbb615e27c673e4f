"""LeNet-5's loss and gradients by hand, in a few large matrix products: autograd's numbers, sooner.

Autograd runs some hundred small operations a step, and on small batches the calls cost more than the arithmetic. The
sums here have another order than autograd's, so results differ from its own in the last bits.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    return LeNet5Gradients(model) if type(model) in (LeNet5, LeNet5On28) else None


class LeNet5Gradients:
    """Forward and backward pass of two convolutions and three linear layers with ReLU, and cross-entropy."""

    def __init__(self, model: Network) -> None:
        """``model``: a ``LeNet5`` or ``LeNet5On28``."""
        self._side = model.input_size
        self._convolutions = [layer for layer in model.children() if isinstance(layer, nn.Conv2d)]
        self._linears = [layer for layer in model.children() if isinstance(layer, nn.Linear)]
        self._stages: dict[int, list[PooledConvolution]] = {}  # by number of images: batches are of two sizes at most

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Mean loss of ``images`` [B, 1, S, S] with ``labels`` (int64 [B]) and its gradients; see ``by_hand``."""
        slices = zip(images.split(SLICE), labels.split(SLICE), strict=True)
        (loss, gradients), *more = [self._share(*part, len(labels)) for part in slices]
        for other_loss, others in more:
            loss += other_loss
            torch._foreach_add_(gradients, others)
        return loss, gradients

    def _share(self, images: Tensor, labels: Tensor, batch_size: int) -> tuple[Tensor, list[Tensor]]:
        """What some of a batch's images add to its mean loss and to the gradients."""
        first, second = self._stages_for(len(images))
        h1 = first.forward(images.flatten(1).t().contiguous())  # [6 * 14 * 14, B], for images of 32x32
        h2 = second.forward(h1)  # [16 * 5 * 5, B]
        loss, d2, of_linears = self._linear_layers(h2.t().contiguous(), labels, batch_size)
        of_second = second.backward(d2.t())
        of_first = first.backward(second.to_input(h1))
        return loss, of_first + of_second + of_linears

    def _stages_for(self, num_images: int) -> list[PooledConvolution]:
        if num_images not in self._stages:
            sides = self._side, pooled_side(self._side)
            pairs = zip(self._convolutions, sides, strict=True)
            self._stages[num_images] = [PooledConvolution(layer, side, num_images) for layer, side in pairs]
        return self._stages[num_images]

    def _linear_layers(self, x: Tensor, labels: Tensor, batch_size: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The share in the loss, in the gradient of what ReLU took to give ``x`` [B, 400], and in the layers'."""
        *inner, last = self._linears
        inputs = [x]
        for layer in inner:
            inputs.append(F.linear(inputs[-1], layer.weight, layer.bias).relu_())
        answer = F.log_softmax(F.linear(inputs[-1], last.weight, last.bias), dim=1)  # [B, 10]
        loss = F.nll_loss(answer, labels, reduction="sum").div_(batch_size)
        d = answer.exp_()
        d.scatter_add_(1, labels[:, None], d.new_full((len(d), 1), -1)).div_(batch_size)
        gradients: list[Tensor] = []
        for layer, given in zip(reversed(self._linears), reversed(inputs), strict=True):
            gradients = [d.t() @ given, d.sum(0), *gradients]
            d = keep_where_positive(d @ layer.weight, given)
        return loss, d, gradients
