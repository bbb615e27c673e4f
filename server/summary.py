"""A run in rows: what the table at the end of a run shows, one row a round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from server.phases import KEYS, totals


@dataclass(frozen=True)
class Row:
    """One round: its figures on the test set, and how it came about.

    Accuracies and share of data are 0..1, losses are per example; ``train_loss`` is nan where no update was averaged.
    Where nothing is averaged, ``accuracy`` and ``loss`` are those of the best node's own model.
    """

    number: int
    loss: float
    accuracy: float
    is_best: bool = False
    train_loss: float = math.nan
    num_nodes: int = 0
    num_rejected: int = 0
    num_expired: int = 0
    share_of_data: float = 0.0
    seconds: float = math.nan
    local_mean: float = math.nan  # of the nodes' own models, where nothing is averaged
    local_worst: float = math.nan
    phases: Mapping[str, float] = field(default_factory=dict)  # seconds by name of ``server.phases``

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any]) -> Self:
        """The row of one object of ``metrics.jsonl``; round 0 has the test figures only."""
        return cls(
            number=metrics["round"],
            loss=_number(metrics["test_loss"]),
            accuracy=_number(metrics["test_accuracy"]),
            is_best=bool(metrics.get("best", False)),
            train_loss=_number(metrics.get("train_loss")),
            num_nodes=metrics.get("num_nodes", 0),
            num_rejected=metrics.get("num_rejected", 0),
            num_expired=metrics.get("num_expired", 0),
            share_of_data=metrics.get("share_of_data", 0.0),
            seconds=_number(metrics.get("seconds")),
            local_mean=_number(metrics.get("local_accuracy_mean")),
            local_worst=_number(metrics.get("local_accuracy_worst")),
            phases={name: _number(metrics.get(key)) for name, key in KEYS.items()},
        )


@dataclass(frozen=True)
class Summary:
    """A finished run: where it is kept and its rounds in order, those before a resume included."""

    run_dir: Path
    rows: tuple[Row, ...]

    @property
    def best(self) -> Row | None:
        """The round whose model is in ``best.pt``: the last that was the best so far."""
        return next((row for row in reversed(self.rows) if row.is_best), None)

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of every phase over all rounds, the longest first."""
        return totals([row.phases for row in self.rows])

    @property
    def best_path(self) -> Path:
        """The best global ``state_dict`` of the run."""
        return self.run_dir / "best.pt"


def _number(value: float | None) -> float:
    return math.nan if value is None else value
