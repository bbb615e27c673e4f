"""OpenBLAS's products of many small matrices in one call, with AVX-512 where torch's MKL leaves it unused.

The package scipy-openblas32 brings the library; those who build NumPy and SciPy take it from there. It is loaded apart
from theirs, so neither its kernels nor its one thread depend on the environment or on who imported what first. What
its functions take: ``cblas.h`` of https://github.com/OpenMathLib/OpenBLAS.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

_WITH_AVX512 = "SKYLAKEX"  # asked for by name: OpenBLAS does not know every processor that has it
_ROWS_FIRST, _AS_IT_IS, _TRANSPOSED = 101, 111, 112
_MATRICES = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)  # where, elements from row to row, and from one to the next
_ARGUMENTS = (
    *(ctypes.c_int,) * 6,  # which order, whether a and b are transposed, I, J, K
    *(ctypes.c_float, *_MATRICES, *_MATRICES),  # what a @ b is multiplied by
    *(ctypes.c_float, *_MATRICES, ctypes.c_int),  # what the former result is multiplied by; how many pairs
)


class OpenBlas:
    """The library, for one thread a call."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises: AttributeError: it is too old for this."""
        self._multiply = library.scipy_cblas_sgemm_batch_strided
        self._multiply.argtypes, self._multiply.restype = _ARGUMENTS, None

    def multiply(self, a: Tensor, b: Tensor, out: Tensor) -> bool:
        """``out = a @ b`` for each of M pairs.

        Args:
            a: float32 [M, I, K].
            b: float32 [M, K, J].
            out: float32 [M, I, J], contiguous, in memory of its own.

        Returns:
            Whether it did: not if rows and columns of ``a`` or ``b`` are both in pieces.

        Raises:
            ValueError: they do not fit together.
        """
        (m, i, k), j = a.shape, b.shape[2]
        of_a, of_b = _layout(a), _layout(b)
        if of_a is None or of_b is None:
            return False
        if b.shape[:2] != (m, k) or out.shape != (m, i, j) or not out.is_contiguous():
            raise ValueError(f"no product of {tuple(a.shape)} and {tuple(b.shape)} in {tuple(out.shape)}")
        if not a.dtype == b.dtype == out.dtype == torch.float32:
            raise ValueError(f"no product of {a.dtype} and {b.dtype} in {out.dtype}")
        (how_a, row_of_a), (how_b, row_of_b) = of_a, of_b
        self._multiply(
            *(_ROWS_FIRST, how_a, how_b, i, j, k),
            *(1.0, a.data_ptr(), row_of_a, a.stride(0), b.data_ptr(), row_of_b, b.stride(0)),
            *(0.0, out.data_ptr(), j, i * j, m),
        )
        return True


def load(root: Path = Path("/")) -> OpenBlas | None:
    """The library; None where it is not installed, or MKL is sooner: it is with AVX2, and on Intel's processors."""
    package = find_spec("scipy_openblas32")
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or _is_intels(root) or package is None:
        return None
    found = [path for folder in package.submodule_search_locations or () for path in Path(folder, "lib").glob("*.so")]
    try:
        with _environment(OPENBLAS_CORETYPE=_WITH_AVX512, OPENBLAS_NUM_THREADS="1"):
            return OpenBlas(ctypes.CDLL(str(found[0])))
    except (AttributeError, IndexError, OSError):
        return None


def _is_intels(root: Path) -> bool:
    """Whether the processor is, or cannot be asked."""
    try:
        return "GenuineIntel" in (root / "proc" / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True


def _layout(x: Tensor) -> tuple[int, int] | None:
    """Whether [M, R, C] is transposed, and the elements from one row, or column if so, to the next; None: neither."""
    _, rows, columns = x.shape
    _, down, right = x.stride()
    if (right == 1 or columns == 1) and (down >= columns or rows == 1):
        return _AS_IT_IS, max(down, columns)
    if (down == 1 or rows == 1) and (right >= rows or columns == 1):
        return _TRANSPOSED, max(right, rows)
    return None


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """The library reads it when it is loaded, and only then."""
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
