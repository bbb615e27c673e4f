"""The console: what the person at the server's machine sees of a run, event by event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from common.texts import one_line
from server.console.beginning import Beginning
from server.console.figures import printable
from server.console.output import Output

if TYPE_CHECKING:
    from common.training import Evaluation
    from server.gathering import Waiting
    from server.report import Round
    from server.summary import Summary

MAX_PASSED_ON = 20_000  # characters of a line from another machine; a round in JSON may list many reasons
MAX_ERROR_LINE = 1000  # characters; an error may quote what a node sent


class Console(ABC):
    """Shows the events of a run. Any thread may call any of them; none ever raises for want of a reader.

    ``finished`` has the last word: what happens after it (nodes that leave) is not shown, failures excepted.
    Used as a context manager it leaves the terminal as it found it.
    """

    def __init__(self, output: Output, errors: Output) -> None:
        self._output = output
        self._errors = errors

    @abstractmethod
    def started(self, run: Beginning) -> None:
        """A run begins or goes on."""

    @abstractmethod
    def waiting(self, how_far: Waiting, num_shards: int) -> None:
        """Too few nodes are there for a run on so many shards; call it as often as you like."""

    @abstractmethod
    def joined(self, node: str, shard: int, address: str) -> None:
        """A node joined with a shard (-1: its own data)."""

    @abstractmethod
    def left(self, node: str, reason: str) -> None:
        """A node is gone."""

    @abstractmethod
    def notice(self, text: str) -> None:
        """Something to know that does not end the run."""

    @abstractmethod
    def round_started(self, number: int, total: int, num_nodes: int) -> None:
        """The tasks of a round go out to ``num_nodes`` nodes."""

    @abstractmethod
    def progress(self, node: str, fraction: float) -> None:
        """A node has done this much (0..1) of its training in this round."""

    @abstractmethod
    def delivered(self, node: str) -> None:
        """A node's update arrived."""

    @abstractmethod
    def round_done(self, done: Round | None, number: int, evaluation: Evaluation, is_best: bool, total: int) -> None:
        """A round is averaged and evaluated; ``done`` is None for round 0."""

    @abstractmethod
    def finished(self, summary: Summary) -> None:
        """The run is complete."""

    def submitted(self, run: str, address: str) -> None:
        """A SuperLink at ``address`` (HOST:PORT) took the run under this number; what follows happens there."""
        self._output.line(f"Run {run} on the SuperLink at {address}; Ctrl-C stops it there")

    def pass_on(self, line: str) -> None:
        """A line of the console of a run on a SuperLink."""
        self._output.line(one_line(line[:MAX_PASSED_ON]))

    def failed(self, text: str) -> None:
        """The run ends with an error; ``text`` is one or two lines for a person."""
        self._last_words(f"Error: {text}")

    def interrupted(self, text: str) -> None:
        """The run was asked to stop; ``text`` says what is saved and how to go on."""
        self._last_words(f"Interrupted: {text}")

    def close(self) -> None:
        """Stop drawing; may be called more than once."""
        self._output.end()

    def _last_words(self, text: str) -> None:
        self.close()
        self._errors.line("\n".join(printable(line, MAX_ERROR_LINE) for line in text.splitlines()))

    def __enter__(self) -> Self:
        """The console itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing, whatever happened."""
        self.close()
