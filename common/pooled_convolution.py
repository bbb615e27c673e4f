"""A 5x5 convolution, 2x2 max pooling and ReLU as one matrix product, forward and backward, without autograd.

The four outputs that are pooled into one see a window of 6x6 inputs. So the kernel, laid into 6x6 zeros in its four
places, gives all four at once: 1.44 times the multiplications of a convolution, and 0.36 times the patches to copy.
The batch is the last dimension, and pixels of even columns come before those of odd ones, so that whatever is copied,
compared or added up lies in memory in long rows. The first dimension counts models that are trained at once, mostly
one: each has a matrix product of its own.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from common.products import product

KERNEL = 5  # pixels on a side
_WINDOW = KERNEL + 1  # pixels on a side of what is pooled into one

_where_positive = torch.ops.aten.threshold_backward  # (d, x, 0): d where x > 0, and 0 elsewhere


class PooledConvolution:
    """``max_pool2d(relu(convolution(x)), 2)`` of an x that always lies in the same memory.

    It holds memory for its intermediate results: made anew in every step, they cost a third of its time.

    Attributes:
        output: [M, O, P] for P pixels in the order of the windows, the batch's images included, until the next call.
    """

    def __init__(self, weight: Tensor, bias: Tensor, windows: Tensor) -> None:
        """Args: weight: [M, O, C, 5, 5] and bias: [M, O], of M convolutions without padding; windows: of their x."""
        models, outputs, inputs = weight.shape[:3]
        pixels, one = windows.shape[5:].numel(), inputs * _WINDOW**2
        self._weight, self._bias, self._windows = weight, bias[:, :, None], windows
        self._place_strides = 4 * outputs * one, 2 * outputs * one - _WINDOW, outputs * one - 1, one
        self._patches = weight.new_empty(windows.shape)
        self._columns = self._patches.view(models, one, pixels)
        self._columns_t, self._d_columns = self._columns.transpose(1, 2), torch.empty_like(self._columns)
        self._kernels = weight.new_zeros(models, 4 * outputs, one)
        self._kernels_t, self._d_kernels = self._kernels.transpose(1, 2), torch.empty_like(self._kernels)
        self._kernel = weight.new_zeros(models, outputs, one - _WINDOW - 1)  # from its first weight to its last
        self._four_kernels = self._places(self._kernels)
        self._kernel_weights = self._weights(self._kernel)
        self._rows = weight.new_empty(models, 4 * outputs, pixels)
        four = self._rows.view(models, 2, 2, outputs, pixels)  # lower row first, right column first
        self._columns_of_four = four.unbind(2)
        self._two = weight.new_empty(models, 2, outputs, pixels)  # the larger one in each row, later its gradient
        self._rows_of_two = self._two.unbind(1)
        self.output = weight.new_empty(models, outputs, pixels)

    def forward(self) -> Tensor:
        """The output."""
        self._patches.copy_(self._windows)
        self._kernel_weights.copy_(self._weight)
        self._four_kernels.copy_(self._kernel[:, None, None])
        product(self._kernels, self._columns, self._rows)
        torch.maximum(*self._columns_of_four, out=self._two)
        torch.maximum(*self._rows_of_two, out=self.output)
        return self.output.add_(self._bias).relu_()  # ReLU grows, so it may come after the maximum

    def backward(self, d: Tensor) -> list[Tensor]:
        """Gradients of weight and bias from ``d`` [M, O, P], of what ReLU took; after ``forward``, once."""
        _split(d, self._rows_of_two)
        _split(self._two, self._columns_of_four)
        return [self._folded(product(self._rows, self._columns_t, self._d_kernels)), d.sum(2)]

    def to_windows(self) -> Tensor:
        """The gradients of the windows' pixels [M, C * 6 * 6, P]; after ``backward``."""
        return product(self._kernels_t, self._rows, self._d_columns)

    def _places(self, kernels: Tensor) -> Tensor:
        """[M, 2, 2, O, L]: where the kernel lies in ``kernels`` [M, 4 * O, C * 6 * 6], the last place first.

        L goes from a kernel's first weight to its last; what lies between its rows is 0.
        """
        shape = len(kernels), 2, 2, *self._kernel.shape[1:]
        return kernels.as_strided(shape, (*self._place_strides, 1), _WINDOW + 1)

    def _weights(self, kernel: Tensor) -> Tensor:
        """The weights [M, O, C, 5, 5] in ``kernel`` [M, O, L]."""
        return kernel.as_strided(self._weight.shape, (*kernel.stride()[:2], _WINDOW**2, _WINDOW, 1))

    def _folded(self, of_kernels: Tensor) -> Tensor:
        """The gradient of the kernel from that of its four places; what lies between its rows is added up as well."""
        four = self._places(of_kernels)
        two = four[:, 0] + four[:, 1]
        return self._weights(two[:, 0] + two[:, 1])


class Overlap:
    """From the gradients of windows to those of the pixels, which lie in up to nine of them."""

    def __init__(self, windows: Tensor) -> None:
        """Args: windows: of pooled pixels, as from ``windows_of_pooled``."""
        models, inputs, _, _, _, n, _, b = self._shape = windows.shape
        half = n + 2
        self._lines = windows.new_empty(models, inputs, _WINDOW, n, 2, half, b)
        self._pixels = windows.new_empty(models, inputs, half, 2, 2 * half * b)
        lines = self._lines.view(models, inputs, 3, 2, n, -1)
        self._columns = [self._lines[..., i : i + n, :] for i in range(3)]
        self._rows = [(self._pixels[:, :, i : i + n], lines[:, :, i].transpose(2, 3)) for i in range(3)]
        self._last = self._lines[..., n:, :], self._pixels[:, :, n:]
        self._sums = self._pixels.flatten(2)

    def __call__(self, d: Tensor) -> Tensor:
        """The sums [M, C, P'] of ``d`` [M, C * 6 * 6, P]: along columns first, then along rows."""
        windows = d.view(self._shape).permute(3, 0, 1, 2, 5, 4, 6, 7)
        _add_up(zip(self._columns, windows.unbind(), strict=True), self._last[0])
        _add_up(self._rows, self._last[1])
        return self._sums


def every_fourth(x: Tensor) -> Tensor:
    """[M, S, 4, 2, N / 2, B] of ``x`` [M, S, S, B]: columns by what is left of them in steps of four, from 0 to 7."""
    models, side, _, b = x.shape
    row = side * b
    return x.as_strided((models, side, 4, 2, pooled_side(side) // 2, b), (side * row, row, 2 * b, b, 4 * b, 1))


def windows_of_images(x: Tensor) -> Tensor:
    """[M, 1, 6, 3, 2, N, 2, N / 2, B] of ``x`` as from ``every_fourth``: even columns of windows before odd ones."""
    models, side, _, _, half, b = x.shape
    n, column = 2 * half, half * b
    row = 8 * column
    strides = (side * row, side * row, row, 2 * column, column, 2 * row, 2 * column, b, 1)
    return x.as_strided((models, 1, _WINDOW, 3, 2, n, 2, half, b), strides)


def windows_of_pooled(x: Tensor, side: int) -> Tensor:
    """[M, C, 6, 3, 2, N, N, B] of ``x`` [M, C, S * 2 * S / 2 * B], of whose pixels the even columns come first."""
    models, inputs, b = *x.shape[:2], x.shape[2] // side**2
    n, row = pooled_side(side), side * b
    strides = (inputs * side * row, side * row, row, b, row // 2, 2 * row, b, 1)
    return x.as_strided((models, inputs, _WINDOW, 3, 2, n, n, b), strides)


def keep_where_positive(d: Tensor, x: Tensor) -> Tensor:
    """The gradient of what ReLU took, in place of ``d``, that of ``x``, which it gave."""
    result: Tensor = _where_positive.grad_input(d, x, 0, grad_input=d)
    return result


def pooled_side(side: int) -> int:
    """Pixels on a side after a 5x5 convolution and 2x2 pooling of ``side`` (even)."""
    return (side - KERNEL + 1) // 2


def _split(d: Tensor, pair: tuple[Tensor, ...]) -> None:
    """Give ``d`` to the larger of ``pair``, to the second if they are equal, in place of them."""
    later, earlier = pair
    torch.sub(later, earlier, out=later)
    _where_positive.grad_input(d, later, 0, grad_input=later)
    torch.sub(d, later, out=earlier)


def _add_up(pairs: Iterable[tuple[Tensor, Tensor]], rest: Tensor) -> None:
    """Add to each of the places, which overlap, what belongs there; ``rest``: where the first does not reach."""
    (first, step), *others = pairs
    first.copy_(step)
    rest.zero_()
    for place, step in others:
        place += step
