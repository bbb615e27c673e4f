"""Matrix products of several pairs at once, by OpenBLAS where that is sooner than torch's own library."""

import torch
from torch import Tensor

from common import openblas

_OPENBLAS = openblas.load()


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """``a @ b``, the same way for one pair as for each of many, so that a result does not depend on the others.

    Args:
        a: [M, I, K].
        b: [M, K, J].
        out: [M, I, J], contiguous: where the result is put; new memory if there is none.
    """
    if out is None:
        out = a.new_empty(*a.shape[:2], b.shape[2])
    if _OPENBLAS and a.dtype == torch.float32 and _OPENBLAS.multiply(a, b, out):
        return out
    return torch.bmm(a, b, out=out)
