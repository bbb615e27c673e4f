"""A 5x5 convolution, 2x2 max pooling and ReLU as one matrix product, forward and backward, without autograd.

The four outputs that are pooled into one see a patch of 6x6 inputs. So the kernel, laid into 6x6 zeros in its four
places, gives all four at once: 1.44 times the multiplications of a convolution, and 0.36 times the patches to copy.
The batch is the last dimension, so that whatever is copied, compared or added up lies in memory in long rows.
"""

import torch
from torch import Tensor, nn

KERNEL = 5  # pixels on a side
_PATCH, _FRAMED = KERNEL + 1, KERNEL + 2  # of what is pooled into one; of a kernel with zeros around it

_where_positive = torch.ops.aten.threshold_backward  # (d, x, 0): d where x > 0, and 0 elsewhere


class PooledConvolution:
    """``max_pool2d(relu(convolution(x)), 2)`` on [C, S, S, B] (S even), which gives [O, N, N, B], N = (S - 4) / 2.

    It holds memory for its intermediate results: made anew in every step, they cost a third of its time.
    """

    def __init__(self, convolution: nn.Conv2d, side: int, num_images: int) -> None:
        """Args: convolution: of 5x5 pixels, without padding, with a bias; side: S; num_images: B."""
        weight, self._bias = convolution.weight, convolution.bias
        outputs, inputs = weight.shape[:2]
        self._weight, self._side, self._pooled, self._num_images = weight, side, pooled_side(side), num_images
        pixels = self._pooled**2 * num_images
        self._framed = weight.new_zeros(outputs, inputs, _FRAMED, _FRAMED)
        self._patches = weight.new_empty(inputs, _PATCH, _PATCH, self._pooled, self._pooled, num_images)
        self._four = weight.new_empty(2, 2, outputs, pixels)  # lower row first, right column first: see _kernels
        self._two = weight.new_empty(2, outputs, pixels)  # the larger one in each row
        self._one = weight.new_empty(outputs, pixels)
        self._d_two = weight.new_empty(2, outputs, pixels)
        self._kernels = weight.new_empty(4 * outputs, inputs * _PATCH**2)
        self._d_patches = weight.new_empty(inputs * _PATCH**2, pixels)
        self._d_lines = weight.new_empty(inputs, side // 2, 2, _PATCH, self._pooled, num_images)
        self._d_input = weight.new_empty(inputs, side, side // 2, 2, num_images)

    def forward(self, x: Tensor) -> Tensor:
        """[C * S * S, B], contiguous, to [O * N * N, B], which lives until the next call."""
        side, b = self._side, self._num_images
        patches = x.as_strided(self._patches.shape, (side * side * b, side * b, b, 2 * side * b, 2 * b, 1))
        self._patches.copy_(patches)
        self._kernels.view(2, 2, *self._framed.shape[:2], _PATCH, _PATCH).copy_(self._shifted())
        torch.mm(self._kernels, self._columns(), out=self._rows())
        torch.maximum(self._four[:, 0], self._four[:, 1], out=self._two)
        torch.maximum(self._two[0], self._two[1], out=self._one)
        assert self._bias is not None
        return self._one.add_(self._bias[:, None]).relu_().view(-1, b)  # ReLU grows, so it may come after the maximum

    def backward(self, d: Tensor) -> list[Tensor]:
        """Gradients of weight and bias from ``d`` [O * N * N, B], that of what ReLU took; after ``forward``, once."""
        d = d.reshape(self._one.shape)
        self._unpool(d)
        return [self._folded(self._rows() @ self._columns().t()), d.sum(1)]

    def to_input(self, x: Tensor) -> Tensor:
        """The gradient [C * S * S, B] of what ReLU took to give ``x``; after ``backward``, x as ``forward`` took it."""
        inputs, n, b = len(self._patches), self._pooled, self._num_images
        torch.mm(self._kernels.t(), self._rows(), out=self._d_patches)
        patches = self._d_patches.view(inputs, 3, 2, _PATCH, n, n, b)
        lines = self._d_lines.zero_()  # overlapping patches are added up along columns …
        for step in range(3):
            lines[:, step : step + n] += patches[:, step].permute(0, 3, 1, 2, 4, 5)
        lines = lines.view(inputs, self._side, 3, 2, n, b)
        d = self._d_input.zero_()  # … and then along rows
        for step in range(3):
            d[:, :, step : step + n] += lines[:, :, step].transpose(2, 3)
        return keep_where_positive(d.view_as(x), x)

    def _columns(self) -> Tensor:
        return self._patches.view(self._kernels.shape[1], -1)

    def _rows(self) -> Tensor:
        return self._four.view(len(self._kernels), -1)

    def _shifted(self) -> Tensor:
        """[2, 2, O, C, 6, 6]: the kernel in its four places, the last one first: windows of the framed kernel."""
        self._framed[:, :, 1:-1, 1:-1] = self._weight
        outputs, inputs = self._framed.shape[:2]
        strides = (_FRAMED, 1, inputs * _FRAMED**2, _FRAMED**2, _FRAMED, 1)
        return self._framed.as_strided((2, 2, outputs, inputs, _PATCH, _PATCH), strides)

    def _folded(self, gradient: Tensor) -> Tensor:
        """The gradient of the kernel from that of its four places."""
        outputs, inputs = self._framed.shape[:2]
        place = outputs * inputs * _PATCH**2
        strides = (2 * place - _PATCH, place - 1, inputs * _PATCH**2, _PATCH**2, _PATCH, 1)
        four = gradient.as_strided((2, 2, outputs, inputs, KERNEL, KERNEL), strides, _PATCH + 1)
        two = four[0] + four[1]
        return two[0] + two[1]

    def _unpool(self, d: Tensor) -> None:
        """Turn the four outputs into their gradients: ``d`` for the largest, the first of equals as in torch."""
        _split(d, self._two, self._d_two)
        _split(self._d_two, self._four.transpose(0, 1), self._four.transpose(0, 1))


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
