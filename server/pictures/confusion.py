"""The confusion matrix: how often each digit was read as which."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from server.pictures.colours import BLUES, ORANGES, Floats, Picture, coloured
from server.pictures.sheet import PALE, PAPER, Words, enlarged

CELL = 28  # pixels
MARGIN = 35  # pixels: for the words on each side
NUM_DIGITS = 10


def confusions(labels: Tensor, answers: Tensor) -> Tensor:
    """Counts int64 [10, 10]: row = what it is, column = what it was read as.

    Args:
        labels: int64 [N], 0..9.
        answers: float32 [N, 10], the network's; the largest counts.
    """
    pairs = labels * NUM_DIGITS + answers.argmax(dim=1)
    return torch.bincount(pairs, minlength=NUM_DIGITS**2).view(NUM_DIGITS, NUM_DIGITS)


def confusion_matrix(counts: Tensor) -> Picture:
    """The table of ``counts`` (int64 [10, 10]), right answers blue, mistakes orange.

    At the right the share of each digit that was recognised (recall), below the share of the answers of each digit
    that were right (precision).
    """
    cells = enlarged(_cell_colours(counts), CELL)
    words = Words(np.pad(cells, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=PAPER))
    _write_counts(words, counts)
    right = counts.diagonal()
    _write_edges(words, (right / counts.sum(dim=1)).tolist(), (right / counts.sum(dim=0)).tolist())
    return words.picture


def _cell_colours(counts: Tensor) -> Picture:
    """RGB [10, 10, 3]; mistakes by the root of their share of the commonest, or few of them would be seen."""
    table = counts.double().numpy()
    is_right = np.eye(NUM_DIGITS, dtype=bool)
    mistakes = np.where(is_right, 0.0, table)
    blue = coloured(_shares(table, table.sum(axis=1, keepdims=True)) * 0.75, BLUES)  # darker would hide the number
    orange = coloured(np.sqrt(_shares(mistakes, mistakes.max())) * 0.75, ORANGES)
    return np.where(is_right[..., np.newaxis], blue, orange)


def _shares(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _write_counts(words: Words, counts: Tensor) -> None:
    for row, line in enumerate(counts.tolist()):
        for column, count in enumerate(line):
            if count:
                ink = "#ffffff" if row == column and count > counts[row].sum() / 2 else "#202124"
                words.at(_middle(column), _middle(row), str(count), ink=ink)


def _write_edges(words: Words, recalls: list[float], precisions: list[float]) -> None:
    end = MARGIN + NUM_DIGITS * CELL
    for digit in range(NUM_DIGITS):
        words.at(_middle(digit), MARGIN - 8, str(digit), size=12)
        words.at(MARGIN - 9, _middle(digit), str(digit), size=12)
        words.at(end + 16, _middle(digit), _percent(recalls[digit]), ink=PALE)
        words.at(_middle(digit), end + 10, _percent(precisions[digit]), ink=PALE)
    words.at((MARGIN + end) / 2, 12, "read as", size=12)
    words.at(12, (MARGIN + end) / 2, "is", size=12)
    words.at(end + 16, 12, "recall", ink=PALE)
    words.at(end + 16, MARGIN - 10, "%", ink=PALE)
    words.at((MARGIN + end) / 2, end + 25, "precision %", ink=PALE)


def _middle(place: int) -> float:
    return MARGIN + (place + 0.5) * CELL


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.1f}"  # nan: no such digit
