"""The mistakes that a model is surest of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from server.pictures.colours import Picture, grey
from server.pictures.sheet import PALE, PAPER, Words, enlarged, framed, in_columns

COLUMNS = 5
MOST = COLUMNS**2
TIMES = 2  # a digit's pixels are this large
SIDE = 28 * TIMES  # pixels
# Pixels: a place for a digit and the words below it, its lines of words, and the paper around all of them.
WIDTH, HEIGHT, FIRST, SECOND, MARGIN = 66, SIDE + 34, SIDE + 8, SIDE + 21, 6


@dataclass(frozen=True)
class Mistake:
    """One image that was read as another digit."""

    index: int  # among the test images
    label: int  # what it is, 0..9
    answer: int  # what it was read as, 0..9
    confidence: float  # the network's probability of the answer, 0..1


def surest_mistakes(labels: Tensor, probabilities: Tensor, most: int = MOST) -> list[Mistake]:
    """Up to ``most`` mistakes, the surest first, at equal confidence the earlier image.

    Args:
        labels: int64 [N], 0..9.
        probabilities: float32 [N, 10], 0..1.
        most: how many, >= 1.
    """
    confidences, answers = probabilities.max(dim=1)
    wrong = (answers != labels).nonzero().flatten()
    order = confidences[wrong].argsort(descending=True, stable=True)
    return [
        Mistake(index, int(labels[index]), int(answers[index]), float(confidences[index]))
        for index in wrong[order[:most]].tolist()
    ]


def mistakes_sheet(images: Tensor, mistakes: list[Mistake]) -> Picture:
    """Each mistake's image with what it is, what it was read as and how sure the model was, 5 in a row.

    Args:
        images: uint8 [N, 28, 28], those that the mistakes' indices are of.
        mistakes: 25 at most; places without one stay empty.
    """
    empty = np.full((HEIGHT, WIDTH, 3), PAPER, dtype=np.uint8)
    tiles = [_tile(images[mistake.index], mistake) for mistake in mistakes]
    return framed(in_columns(tiles + [empty] * (MOST - len(tiles)), COLUMNS), MARGIN)


def _tile(image: Tensor, mistake: Mistake) -> Picture:
    left = (WIDTH - SIDE) // 2
    digit = enlarged(grey(image), TIMES)
    words = Words(np.pad(digit, ((0, HEIGHT - SIDE), (left, left), (0, 0)), constant_values=PAPER))
    words.at(WIDTH / 2, FIRST, f"{mistake.label} read as {mistake.answer}")
    words.at(WIDTH / 2, SECOND, f"{mistake.confidence:.1%}", ink=PALE)
    return words.picture


def probabilities_of(answers: Tensor) -> Tensor:
    """Probabilities [N, 10] of a network's ``answers`` (logits or log-probabilities [N, 10]); 0 where it diverged."""
    return torch.softmax(answers, dim=1).nan_to_num(nan=0.0)
