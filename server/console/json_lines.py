"""The console for machines: one JSON object a line, its kind under ``event``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from server.console.beginning import Beginning
from server.console.console import Console
from server.console.output import Output
from server.report import Round, finite, metrics_record
from server.summary import Summary

if TYPE_CHECKING:
    from common.training import Evaluation
    from server.gathering import Waiting

FORMAT = 1  # raised when a key changes its meaning or goes; new events and keys may appear at any time


class JsonConsole(Console):
    """Objects with the keys of ``metrics.jsonl`` where they say the same; a number that does not exist is null."""

    def __init__(self, output: Output, errors: Output) -> None:
        super().__init__(output, errors)
        self._waiting: Waiting | None = None  # as it was said last

    def started(self, run: Beginning) -> None:
        """``run_dir, address, rounds, first_round, model, engine, baseline, token``."""
        self._emit("started", **(asdict(run) | {"run_dir": str(run.run_dir)}))

    def waiting(self, how_far: Waiting, num_shards: int) -> None:
        """The fields of ``Waiting`` and ``num_shards``; again when one but ``seconds_left`` changes."""
        seen = replace(how_far, seconds_left=0.0)
        if seen != self._waiting:
            self._waiting = seen
            self._emit("waiting", **asdict(how_far), num_shards=num_shards)

    def joined(self, node: str, shard: int, address: str) -> None:
        """``node, shard, address``."""
        self._emit("joined", node=node, shard=shard, address=address)

    def left(self, node: str, reason: str) -> None:
        """``node, reason``."""
        self._emit("left", node=node, reason=reason)

    def notice(self, text: str) -> None:
        """``text``."""
        self._emit("notice", text=text)

    def round_started(self, number: int, total: int, num_nodes: int) -> None:
        """``round, rounds, num_nodes``."""
        self._emit("round_started", round=number, rounds=total, num_nodes=num_nodes)

    def progress(self, node: str, fraction: float) -> None:
        """``node, fraction``."""
        self._emit("progress", node=node, fraction=fraction)

    def delivered(self, node: str) -> None:
        """``node``."""
        self._emit("delivered", node=node)

    def round_done(self, done: Round | None, number: int, evaluation: Evaluation, is_best: bool, total: int) -> None:
        """The keys of ``metrics.jsonl``, ``rounds``, ``averaged`` and ``set_aside`` (``node, verdict, reason``)."""
        self._waiting = None
        figures = metrics_record(number, evaluation, done, is_best)
        more = {} if done is None else {"averaged": done.averaged, "set_aside": _set_aside(done)}
        self._emit("round_done", **figures, rounds=total, **more)

    def finished(self, summary: Summary) -> None:
        """``run_dir, rounds, best_path, best_round, best_accuracy, last_accuracy, phases`` (seconds, longest first)."""
        best = summary.best
        self._emit(
            "finished",
            run_dir=str(summary.run_dir),
            rounds=summary.rows[-1].number,
            best_path=str(summary.best_path) if best else None,
            best_round=best.number if best else None,
            best_accuracy=best.accuracy if best else None,
            last_accuracy=summary.rows[-1].accuracy,
            phases=summary.phases,
        )
        self.close()

    def submitted(self, run: str, address: str) -> None:
        """``run, address``."""
        self._emit("submitted", run=run, address=address)

    def failed(self, text: str) -> None:
        """``text``; the person at standard error reads it too."""
        self._emit("failed", text=text)
        super().failed(text)

    def interrupted(self, text: str) -> None:
        """``text``; the person at standard error reads it too."""
        self._emit("interrupted", text=text)
        super().interrupted(text)

    def _emit(self, event: str, **values: Any) -> None:
        record = {"event": event, "format": FORMAT, **finite(values)}
        self._output.line(json.dumps(record, allow_nan=False))


def _set_aside(done: Round) -> list[dict[str, str]]:
    return [
        {"node": report.node, "verdict": report.verdict, "reason": report.reason}
        for report in done.reports
        if report.verdict != "accepted"
    ]
