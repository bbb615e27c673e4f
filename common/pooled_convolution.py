"""A 5x5 convolution, 2x2 max pooling and ReLU as one matrix product, forward and backward, without autograd.

The four outputs that are pooled into one see a patch of 6x6 inputs. So the kernel, laid into 6x6 zeros in its four
places, gives all four at once: 1.44 times the multiplications of a convolution, and 0.36 times the patches to copy.
The batch is the last dimension, so that whatever is copied, compared or added up lies in memory in long rows. The first
one counts models that are trained at once, mostly one: each has a matrix product of its own.
"""

import torch
from torch import Tensor

KERNEL = 5  # pixels on a side
_PATCH, _FRAMED = KERNEL + 1, KERNEL + 2  # of what is pooled into one; of a kernel with zeros around it

_where_positive = torch.ops.aten.threshold_backward  # (d, x, 0): d where x > 0, and 0 elsewhere


class PooledConvolution:
    """``max_pool2d(relu(convolution(x)), 2)`` on [M, C, S, S, B] (S even), to [M, O, N, N, B], N = (S - 4) / 2.

    It holds memory for its intermediate results: made anew in every step, they cost a third of its time.
    """

    def __init__(self, weight: Tensor, bias: Tensor, side: int, num_images: int) -> None:
        """Args: weight: [M, O, C, 5, 5] and bias: [M, O], of M convolutions without padding; side: S; num_images: B."""
        models, outputs, inputs = weight.shape[:3]
        self._weight, self._bias, self._side, self._num_images = weight, bias, side, num_images
        self._pooled = pooled_side(side)
        pixels = self._pooled**2 * num_images
        self._framed = weight.new_zeros(models, outputs, inputs, _FRAMED, _FRAMED)
        self._patches = weight.new_empty(models, inputs, _PATCH, _PATCH, self._pooled, self._pooled, num_images)
        self._four = weight.new_empty(models, 2, 2, outputs, pixels)  # lower row first, right column first
        self._two = weight.new_empty(models, 2, outputs, pixels)  # the larger one in each row
        self._one = weight.new_empty(models, outputs, pixels)
        self._d_two = weight.new_empty(models, 2, outputs, pixels)
        self._kernels = weight.new_empty(models, 4 * outputs, inputs * _PATCH**2)
        self._d_patches = weight.new_empty(models, inputs * _PATCH**2, pixels)
        self._d_lines = weight.new_empty(models, inputs, side // 2, 2, _PATCH, self._pooled, num_images)
        self._d_input = weight.new_empty(models, inputs, side, side // 2, 2, num_images)

    def forward(self, x: Tensor) -> Tensor:
        """[M, C * S * S, B], contiguous, to [M, O * N * N, B], which lives until the next call."""
        side, b, inputs = self._side, self._num_images, self._patches.shape[1]
        strides = (inputs * side * side * b, side * side * b, side * b, b, 2 * side * b, 2 * b, 1)
        self._patches.copy_(x.as_strided(self._patches.shape, strides))
        shifted = self._shifted()
        self._kernels.view(shifted.shape).copy_(shifted)
        torch.bmm(self._kernels, self._columns(), out=self._rows())
        torch.maximum(self._four[:, :, 0], self._four[:, :, 1], out=self._two)
        torch.maximum(self._two[:, 0], self._two[:, 1], out=self._one)
        # ReLU grows, so it may come after the maximum
        return self._one.add_(self._bias[:, :, None]).relu_().view(len(x), -1, b)

    def backward(self, d: Tensor) -> list[Tensor]:
        """Gradients of weight and bias from ``d`` [M, O * N * N, B], of what ReLU took; after ``forward``, once."""
        d = d.reshape(self._one.shape)
        self._unpool(d)
        return [self._folded(torch.bmm(self._rows(), self._columns().transpose(1, 2))), d.sum(2)]

    def to_input(self, x: Tensor) -> Tensor:
        """The gradient [M, C * S * S, B] of what ReLU took to give ``x``; after ``backward``, x as in ``forward``."""
        models, inputs, n, b = *self._patches.shape[:2], self._pooled, self._num_images
        torch.bmm(self._kernels.transpose(1, 2), self._rows(), out=self._d_patches)
        patches = self._d_patches.view(models, inputs, 3, 2, _PATCH, n, n, b)
        lines = self._d_lines.zero_()  # overlapping patches are added up along columns …
        for step in range(3):
            lines[:, :, step : step + n] += patches[:, :, step].permute(0, 1, 4, 2, 3, 5, 6)
        lines = lines.view(models, inputs, self._side, 3, 2, n, b)
        d = self._d_input.zero_()  # … and then along rows
        for step in range(3):
            d[:, :, :, step : step + n] += lines[:, :, :, step].transpose(3, 4)
        return keep_where_positive(d.view_as(x), x)

    def _columns(self) -> Tensor:
        return self._patches.view(*self._kernels.shape[::2], -1)

    def _rows(self) -> Tensor:
        return self._four.view(*self._kernels.shape[:2], -1)

    def _shifted(self) -> Tensor:
        """[M, 2, 2, O, C, 6, 6]: the kernel in its four places, the last one first: windows of the framed kernel."""
        self._framed[:, :, :, 1:-1, 1:-1] = self._weight
        models, outputs, inputs = self._framed.shape[:3]
        one = inputs * _FRAMED**2
        strides = (outputs * one, _FRAMED, 1, one, _FRAMED**2, _FRAMED, 1)
        return self._framed.as_strided((models, 2, 2, outputs, inputs, _PATCH, _PATCH), strides)

    def _folded(self, gradient: Tensor) -> Tensor:
        """The gradient of the kernel from that of its four places."""
        models, outputs, inputs = self._framed.shape[:3]
        place = outputs * inputs * _PATCH**2
        strides = (4 * place, 2 * place - _PATCH, place - 1, inputs * _PATCH**2, _PATCH**2, _PATCH, 1)
        four = gradient.as_strided((models, 2, 2, outputs, inputs, KERNEL, KERNEL), strides, _PATCH + 1)
        two = four[:, 0] + four[:, 1]
        return two[:, 0] + two[:, 1]

    def _unpool(self, d: Tensor) -> None:
        """Turn the four outputs into their gradients: ``d`` for the largest, the first of equals as in torch."""
        d_two, four = self._d_two.transpose(0, 1), self._four.permute(2, 0, 1, 3, 4)
        _split(d, self._two.transpose(0, 1), d_two)
        _split(self._d_two, four, four)


def keep_where_positive(d: Tensor, x: Tensor) -> Tensor:
    """The gradient of what ReLU took, in place of ``d``, that of ``x``, which it gave."""
    result: Tensor = _where_positive.grad_input(d, x, 0, grad_input=d)
    return result


def pooled_side(side: int) -> int:
    """Pixels on a side after a 5x5 convolution and 2x2 pooling of ``side`` (even)."""
    return (side - KERNEL + 1) // 2


def _split(d: Tensor, pair: Tensor, out: Tensor) -> None:
    """Give ``d`` to the larger of ``pair`` [2, …], to the second if they are equal; ``out`` may be the pair itself."""
    later, earlier = out[0], out[1]
    torch.sub(pair[0], pair[1], out=later)
    _where_positive.grad_input(d, later, 0, grad_input=later)
    torch.sub(d, later, out=earlier)
