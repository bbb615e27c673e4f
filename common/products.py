"""Matrix products of several pairs at once, by oneDNN where that is sooner than torch's own choice.

Torch takes MKL, which leaves AVX-512 unused on cores that are not Intel's: oneDNN has twice its speed there.
"""

import torch
from torch import Tensor

_WORTH_A_CALL = 1_500_000  # multiplications; MKL has done smaller products before oneDNN begins
_HAS_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """``a @ b``, the same way for one pair as for each of many, so that a result does not depend on the others.

    Args:
        a: [M, I, K].
        b: [M, K, J].
        out: [M, I, J], where the result may be put; it is not always.
    """
    if not _HAS_AVX512 or a.dtype != torch.float32 or a[0].numel() * b.shape[2] < _WORTH_A_CALL:
        return torch.bmm(a, b, out=out)
    b = b.transpose(1, 2)
    if len(a) == 1:
        return _by_onednn(a[0], b[0])[None]
    out = a.new_empty(*a.shape[:2], b.shape[1]) if out is None else out
    for of_a, of_b, result in zip(a.unbind(), b.unbind(), out.unbind(), strict=True):
        result.copy_(_by_onednn(of_a, of_b))  # all find the same memory free: new memory each would cost more
    return out


def _by_onednn(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.t()``. It is private, but torch has no other way to oneDNN's product of float32 numbers."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return result
