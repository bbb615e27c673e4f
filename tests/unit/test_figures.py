"""Rule: a cell shows the middle of its seeds and how far they lie apart, and says so while some are missing."""

import pytest

from benchmarks.figures import of_seeds, percent


@pytest.mark.parametrize(
    ("found", "wanted", "cell"),
    [
        ([], 3, "not run yet"),
        ([0.9], 1, "90.00 %"),
        ([0.95, 0.9, 0.97], 3, "95.00 % (90.00–97.00 %)"),
        ([0.9, 0.95], 3, "92.50 % (90.00–95.00 %, 2 of 3 seeds)"),
        ([0.9, 0.9, 0.9], 3, "90.00 %"),
        ([0.9, 0.9], 3, "90.00 % (2 of 3 seeds)"),
    ],
)
def test_a_cell(found: list[float], wanted: int, cell: str) -> None:
    assert of_seeds(found, wanted, percent) == cell
