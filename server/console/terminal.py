"""The console on a terminal: what lasts is printed, what moves is one line at the bottom."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import IO, TYPE_CHECKING, cast

from rich.console import Console as Terminal
from rich.console import RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from server.console import drawing, words
from server.console.beginning import Beginning
from server.console.console import Console
from server.console.output import Output
from server.report import Round, metrics_record
from server.summary import Row, Summary

if TYPE_CHECKING:
    from common.training import Evaluation
    from server.gathering import Waiting


class RichConsole(Console):
    """Colours, a moving line while nodes gather or train, a table at the end; respects ``NO_COLOR``."""

    def __init__(self, output: Output, errors: Output, terminal: Terminal | None = None) -> None:
        super().__init__(output, errors)
        self._terminal = terminal or Terminal(file=cast(IO[str], output), highlight=False)
        self._spinner = Spinner("line" if self._terminal.options.ascii_only else "dots", style="cyan")
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._waiting: tuple[Waiting, int, float] | None = None  # how far, on so many shards, and when that was
        self._is_waiting = self._has_rounds = False
        self._training = drawing.Training()

    def started(self, run: Beginning) -> None:
        """What runs and how a node joins."""
        head = Text(words.started(run))
        head.stylize("bold", 0, len(f"Run {run.run_dir.name}"))
        self._terminal.print(head, soft_wrap=True)
        for where, command in words.how_to_join(run):
            line = Text.assemble((f"  {where + ':':<20}", "dim"), (command, "cyan"))
            self._terminal.print(line, soft_wrap=True)  # a command that is copied must not hold our line break

    def waiting(self, how_far: Waiting, num_shards: int) -> None:
        """One line that counts down on its own."""
        with self._lock:
            self._waiting = (how_far, num_shards, self._terminal.get_time())
            if not self._is_waiting:
                self._draw(self._waiting_line)
                self._is_waiting = True

    def joined(self, node: str, shard: int, address: str) -> None:
        """A line that lasts."""
        self._terminal.print(Text.assemble(("+ ", "bold green"), words.joined(node, shard, address)))

    def left(self, node: str, reason: str) -> None:
        """A line that lasts."""
        self._terminal.print(Text.assemble(("- ", "bold yellow"), words.left(node, reason)))

    def notice(self, text: str) -> None:
        """A line that lasts."""
        self._terminal.print(Text.assemble(("Warning: ", "bold yellow"), words.notice(text)))

    def round_started(self, number: int, total: int, num_nodes: int) -> None:
        """The bar of a round appears."""
        with self._lock:
            label, now = words.round_label(number, total), self._terminal.get_time()
            self._training = drawing.Training(label, num_nodes, now)
            self._draw(self._training_line)

    def progress(self, node: str, fraction: float) -> None:
        """The bar moves."""
        with self._lock:
            self._training.progress(node, fraction)

    def delivered(self, node: str) -> None:
        """The bar moves, and counts."""
        with self._lock:
            self._training.deliver(node)

    def round_done(self, done: Round | None, number: int, evaluation: Evaluation, is_best: bool, total: int) -> None:
        """The bar gives way to one line, and one below it for each update that did not count."""
        row = Row.from_metrics(metrics_record(number, evaluation, done, is_best))
        line = Text(words.round_line(row, total, self._terminal.width), no_wrap=True)
        line.stylize("dim", len(words.round_label(number, total)))
        line.highlight_regex(r"acc(uracy)? +[\d.]+ %", "not dim bold" if number else "not dim")
        line.highlight_regex(r"(?<=  )(★ best|best|\*)$", "not dim bold green")
        line.highlight_regex(r"no usable.*", "not dim bold red")
        with self._lock:
            self._erase()
            if not self._has_rounds:
                self._has_rounds = True
                self._terminal.print()
            self._terminal.print(line)
            if entries := list(words.set_aside(done.reports) if done else ()):
                self._terminal.print(drawing.set_aside(entries))

    def finished(self, summary: Summary) -> None:
        """The table of rounds and where everything lies."""
        with self._lock:
            self._erase()
            self._terminal.print(drawing.rounds_table(summary, self._terminal.width))
            for label, text in words.outcome(summary):
                line = Text.assemble((f" {label:<7} ", "dim"), (text, "bold green" if label == "Best" else "cyan"))
                self._terminal.print(line, soft_wrap=True)
        self.close()

    def close(self) -> None:
        """Remove what moves and give the cursor back."""
        with self._lock:
            self._erase()
        super().close()

    def _draw(self, line: Callable[[], RenderableType]) -> None:
        if not self._output.is_open:
            return
        self._erase()
        # What other code prints to a terminal goes above the moving line; a redirected file keeps what is its own.
        self._live = Live(
            get_renderable=line,
            console=self._terminal,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        self._live.start(refresh=True)

    def _erase(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live, self._is_waiting = None, False

    # Called by the thread of ``Live`` without the lock: an event that holds it may be waiting for that thread.
    def _waiting_line(self) -> RenderableType:
        assert self._waiting, "the line is drawn once there is something to say"
        how_far, num_shards, since = self._waiting
        seconds_left = how_far.seconds_left - (self._terminal.get_time() - since)
        return drawing.waiting_line(
            self._spinner, words.waiting(replace(how_far, seconds_left=seconds_left), num_shards)
        )

    def _training_line(self) -> RenderableType:
        seconds = self._terminal.get_time() - self._training.began
        return drawing.training_line(self._spinner, self._training, seconds, self._terminal.width)
