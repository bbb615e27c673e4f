"""What the terminal console draws: the line that moves, updates set aside, the table of rounds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from server.console import words
from server.console.figures import clock, share
from server.summary import Summary

COLUMN_GAP = 3  # columns between two of the table, and around it
MAX_BAR_LINE = 100  # columns; a bar across a wide screen tells no more


@dataclass
class Training:
    """How far the nodes of one round are."""

    label: str = ""
    num_nodes: int = 0
    began: float = 0.0  # clock of the terminal, seconds
    fractions: dict[str, float] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)

    def progress(self, node: str, fraction: float) -> None:
        """Note a node's share (0..1) of its training; what nodes send is taken for no more than that."""
        known = 0.0 if math.isnan(fraction) else min(max(fraction, 0.0), 1.0)
        self.fractions[node] = 1.0 if node in self.delivered else known

    def deliver(self, node: str) -> None:
        """Note that a node is done."""
        self.delivered.add(node)
        self.fractions[node] = 1.0

    @property
    def fraction(self) -> float:
        """How much of the round's training is done, 0..1."""
        # A list first: other threads add nodes while this one counts.
        return min(1.0, sum(list(self.fractions.values())) / max(1, self.num_nodes))


def waiting_line(spinner: Spinner, text: str) -> RenderableType:
    """What the server waits for."""
    line = Table.grid(padding=(0, 1))
    line.add_row(spinner, Text(text, no_wrap=True, overflow="ellipsis"))
    return line


def training_line(spinner: Spinner, training: Training, seconds: float, width: int) -> RenderableType:
    """One bar over all nodes of a round, ``seconds`` after it began, on a terminal of ``width`` columns."""
    num_delivered, num_nodes = len(training.delivered), training.num_nodes
    state = f"{num_delivered} of {num_nodes} delivered" if num_delivered < num_nodes else "averaging, evaluating"
    line = Table.grid(padding=(0, 2), expand=True)
    line.width = min(width, MAX_BAR_LINE)
    for _ in range(2):
        line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    for _ in range(3):
        line.add_column(no_wrap=True, justify="right")
    line.add_row(
        spinner,
        Text(training.label, "bold"),
        ProgressBar(total=1.0, completed=training.fraction, complete_style="cyan", finished_style="green"),
        Text(share(training.fraction)),
        Text(state, "dim"),
        Text(clock(seconds), "dim"),
    )
    return line


def set_aside(entries: Iterable[tuple[str, str, str]]) -> RenderableType:
    """Updates that did not count: (verdict, node, reason), the reason folded beside the node."""
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="yellow")
    lines.add_column(no_wrap=True, overflow="ellipsis")
    lines.add_column(style="dim", overflow="fold")
    for entry in entries:
        lines.add_row(*map(Text, entry))
    return Padding(lines, (0, 0, 0, 2))


def rounds_table(summary: Summary, width: int) -> Table:
    """The rounds of a run, its best in green; of the columns those that fit into ``width``."""
    best = str(summary.best.number) if summary.best else ""
    rows = list(words.table(summary))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    shown = _fitting([max(map(len, column)) for column in zip(words.COLUMNS, *rows, strict=True)], width)
    for column in shown:
        table.add_column(words.COLUMNS[column], justify="right", no_wrap=True)
    for cells in rows:
        table.add_row(*(Text(cells[column]) for column in shown), style="bold green" if cells[0] == best else None)
    return table


def _fitting(widths: list[int], width: int) -> list[int]:
    """The columns of the table to show, in its order, the less telling ones left out first."""
    shown = list(range(len(widths)))
    for name in ("Set aside", "Data", "Train loss", "Time", "Nodes", "Loss"):
        if sum(widths[column] + COLUMN_GAP for column in shown) <= width:
            break
        shown.remove(words.COLUMNS.index(name))
    return shown
