"""Rule: a product is a product, whatever library does it, and no pair's depends on what others are there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common import openblas, products
from common.products import product

SHAPES = [(3, 5, 2), (10, 84, 10), (24, 36, 1960), (64, 216, 250), (216, 64, 1601), (1, 7, 3), (4, 1, 1)]
HAS_OPENBLAS = openblas.load() is not None
only_openblas = pytest.mark.skipif(not HAS_OPENBLAS, reason="torch's own library does the products here")
LAID: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda x: x,
    "columns": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "long rows": lambda x: torch.cat([x, x], 2)[:, :, : x.shape[2]],
    "matrices last": lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),  # neither rows nor columns in a piece
    "one for all": lambda x: x[:1].expand_as(x),
    "one row for all": lambda x: x[:, :1].expand_as(x),
}


@pytest.fixture(params=["openblas", "torch"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which one does the products; where there is no OpenBLAS, torch does both times."""
    if request.param == "torch":
        monkeypatch.setattr(products, "_OPENBLAS", None)
    return str(request.param)


def whole(shape: tuple[int, int, int], seed: int) -> Tensor:
    """Whole numbers, so that products are exact."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.usefixtures("library", "one_thread")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("laid_b", LAID)
@pytest.mark.parametrize("laid_a", LAID)
def test_products_of_whole_numbers_are_exact(shape: tuple[int, int, int], laid_a: str, laid_b: str) -> None:
    rows, inner, columns = shape
    a, b = LAID[laid_a](whole((3, rows, inner), 1)), LAID[laid_b](whole((3, inner, columns), 2))
    expected = (a.long() @ b.long()).float()
    assert torch.equal(product(a, b), expected)
    out = torch.full((3, rows, columns), torch.nan)  # what was there does not count
    assert product(a, b, out) is out
    assert torch.equal(out, expected)
    assert torch.equal(product(a.double(), b.double()), expected.double())


@pytest.mark.usefixtures("library", "one_thread")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("laid", ["rows", "columns"])
def test_a_pair_alone_and_among_others_gives_the_same_bits(shape: tuple[int, int, int], laid: str) -> None:
    rows, inner, columns = shape
    chance = torch.Generator().manual_seed(2)
    a, b = torch.randn(3, rows, inner, generator=chance), torch.randn(3, inner, columns, generator=chance)
    a, b = LAID[laid](a), LAID[laid](b)
    together = product(a, b)
    for number in range(3):
        one = slice(number, number + 1)
        assert torch.equal(product(a[one], b[one], torch.empty(1, rows, columns))[0], together[number])
        elsewhere = torch.empty(rows * inner + 3)[3:].view(1, rows, inner).copy_(a[one])
        if laid == "rows":
            assert torch.equal(product(elsewhere, b[one])[0], together[number])


@only_openblas
@given(st.integers(1, 6), *(st.integers(1, 40),) * 3, st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_openblas_gives_what_double_precision_says(
    m: int, i: int, k: int, j: int, flip_a: bool, flip_b: bool, seed: int
) -> None:
    loaded, chance = openblas.load(), torch.Generator().manual_seed(seed)
    assert loaded
    a = torch.randn(m, k, i, generator=chance).transpose(1, 2) if flip_a else torch.randn(m, i, k, generator=chance)
    b = torch.randn(m, j, k, generator=chance).transpose(1, 2) if flip_b else torch.randn(m, k, j, generator=chance)
    fence = torch.full((m * i * j + 64,), 7.0)
    out = fence[32:-32].view(m, i, j)
    assert loaded.multiply(a, b, out)
    torch.testing.assert_close(out.double(), a.double() @ b.double(), atol=2e-5, rtol=1e-5)
    assert (fence[:32] == 7).all()
    assert (fence[-32:] == 7).all()


@only_openblas
def test_openblas_takes_nothing_that_does_not_fit() -> None:
    loaded, good = openblas.load(), torch.zeros(2, 3, 3)
    assert loaded
    for a, b, out in (
        (good, good[:1], good.clone()),
        (good, torch.zeros(2, 4, 3), good.clone()),
        (good, good, torch.zeros(2, 3, 2)),
        (good, good, torch.zeros(2, 3, 6)[:, :, :3]),
        (good, good.double(), good.clone()),
        (good, good, good.double()),
    ):
        with pytest.raises(ValueError, match="no product of"):
            loaded.multiply(a, b, out)


@only_openblas
def test_it_is_loaded_with_avx512_and_without_threads_whatever_the_environment_says() -> None:
    script = """
import ctypes, os, re, numpy
before = dict(os.environ)
from common import products
assert dict(os.environ) == before
[path] = {line.split()[-1] for line in open("/proc/self/maps") if "scipy_openblas32" in line}
library = ctypes.CDLL(path)
library.scipy_openblas_get_corename.restype = ctypes.c_char_p
print(library.scipy_openblas_get_corename().decode(), library.scipy_openblas_get_num_threads())
"""
    for given_core in ({}, {"OPENBLAS_CORETYPE": "HASWELL", "OPENBLAS_NUM_THREADS": "3"}):
        environment = {**os.environ, **given_core}
        said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert said.stdout == "SkylakeX 1\n", said.stderr


@pytest.mark.parametrize("lacking", ["the package", "the library", "the function", "AVX-512", "/proc"])
def test_without_it_torch_does_the_products(lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(tmp_path, "AuthenticAMD")
    if lacking == "the package":
        monkeypatch.setattr(openblas, "find_spec", lambda _: None)
    elif lacking == "the library":
        monkeypatch.setattr("pathlib.Path.glob", lambda *_: iter(()))
    elif lacking == "the function":
        monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    elif lacking == "/proc":
        (root / "proc" / "cpuinfo").unlink()
    else:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    before = dict(os.environ)
    assert openblas.load(root) is None
    assert dict(os.environ) == before


@only_openblas
def test_intels_processors_have_mkl(tmp_path: Path) -> None:
    assert openblas.load(machine(tmp_path / "amd", "AuthenticAMD")) is not None
    assert openblas.load(machine(tmp_path / "intel", "GenuineIntel")) is None


def machine(root: Path, vendor: str) -> Path:
    """The folder that is the root of a machine with such a processor."""
    (root / "proc").mkdir(parents=True)
    (root / "proc" / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n", encoding="utf-8")
    return root
