"""The console without drawing: one finished line an event, for files, pipes and ``--quiet``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from server.console import words
from server.console.beginning import Beginning
from server.console.console import Console
from server.console.output import Output
from server.report import Round, metrics_record
from server.summary import Row, Summary

if TYPE_CHECKING:
    from common.training import Evaluation
    from server.gathering import Waiting


class PlainConsole(Console):
    """Lines that stay as they are; a round line never exceeds 80 columns."""

    def __init__(self, output: Output, errors: Output) -> None:
        super().__init__(output, errors)
        self._waiting: Waiting | None = None  # as it was said last

    def started(self, run: Beginning) -> None:
        """Say what runs and how a node joins."""
        self._output.line(words.started(run))
        for where, command in words.how_to_join(run):
            self._output.line(f"{where}: {command}")

    def waiting(self, how_far: Waiting, num_shards: int) -> None:
        """Say who is there, again only when that changes."""
        seen = replace(how_far, seconds_left=0.0)
        if seen != self._waiting:
            self._waiting = seen
            self._output.line(f"Waiting: {words.waiting(how_far, num_shards)}")

    def joined(self, node: str, shard: int, address: str) -> None:
        """Say who joined."""
        self._output.line(f"+ {words.joined(node, shard, address)}")

    def left(self, node: str, reason: str) -> None:
        """Say who left."""
        self._output.line(f"- {words.left(node, reason)}")

    def notice(self, text: str) -> None:
        """Say it on a line of its own."""
        self._output.line(f"Warning: {words.notice(text)}")

    def round_started(self, number: int, total: int, num_nodes: int) -> None:
        """Nothing: the round has its line when it is done."""

    def progress(self, node: str, fraction: float) -> None:
        """Nothing: a line that stays cannot move."""

    def delivered(self, node: str) -> None:
        """Nothing: the round has its line when it is done."""

    def round_done(self, done: Round | None, number: int, evaluation: Evaluation, is_best: bool, total: int) -> None:
        """One line, and one below it for each update that did not count."""
        self._waiting = None
        row = Row.from_metrics(metrics_record(number, evaluation, done, is_best))
        lines = [words.round_line(row, total, words.LINE_WIDTH)]
        for verdict, node, reason in words.set_aside(done.reports) if done else ():
            lines.append(f"  {verdict} {node}: {reason}")
        self._output.line("\n".join(lines))

    def finished(self, summary: Summary) -> None:
        """The table of rounds and where everything lies."""
        rows = [words.COLUMNS, *words.table(summary)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines += [f"{label + ':':<7} {text}" for label, text in words.outcome(summary)]
        self._output.line("\n".join(["", *lines]))
        self.close()
