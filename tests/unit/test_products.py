"""Rule: a product is a product, whatever library does it, and no pair's depends on what others are there."""

import pytest
import torch

from common.products import product

SHAPES = [(3, 5, 2), (24, 36, 1960), (64, 216, 250), (216, 64, 1601)]  # the last two are large


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_whole_numbers_are_exact(shape: tuple[int, int, int], transposed: bool) -> None:
    rows, inner, columns = shape
    chance = torch.Generator().manual_seed(1)
    a = torch.randint(-8, 9, (3, rows, inner), generator=chance).float()
    b = torch.randint(-8, 9, (3, inner, columns), generator=chance).float()
    expected = (a.long() @ b.long()).float()
    if transposed:
        a, b = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (a, b))
    assert torch.equal(product(a, b), expected)
    assert torch.equal(product(a, b, torch.empty(3, rows, columns)), expected)
    assert torch.equal(product(a.double(), b.double()), expected.double())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_pair_alone_and_among_others_gives_the_same_bits(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    chance = torch.Generator().manual_seed(2)
    a, b = torch.randn(3, rows, inner, generator=chance), torch.randn(3, inner, columns, generator=chance)
    together = product(a, b)
    for number in range(3):
        alone = product(a[number : number + 1], b[number : number + 1], torch.empty(1, rows, columns))
        assert torch.equal(alone[0], together[number])
