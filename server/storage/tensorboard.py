"""TensorBoard's event files: one point a round, complete on disk when ``write`` returns.

TensorBoard's own writers put events into a queue for a thread; on a full disk that thread prints a
traceback and the next flush raises or waits. Here records are appended in the caller's thread. The
same figures are in ``metrics.jsonl`` and ``ledger.jsonl``, so a failure here is a warning, not the
end of a run: what was not written is kept and written with the next round.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

from common.training import Evaluation
from server.report import Round
from server.storage.durable import append, write_atomically

PREFIX = "events.out.tfevents."
END = ".end"  # of the name of the file that a finished run ends with
FILE_VERSION = "brain.Event:2"
_LOG = logging.getLogger(__name__)


class TensorBoardWriter:
    """Writes the points of a run into ``folder``, each step once, also over resumes."""

    def __init__(
        self,
        folder: Path,
        first_step: int = 0,
        warn: Callable[[str], None] = _LOG.warning,
    ) -> None:
        """Nothing is written before the first ``write``.

        Args:
            folder: made when it is needed.
            first_step: the first round that will be written, 0..; points of a killed server from there on are hidden.
            warn: told, once per series of failures, that points could not be written yet.
        """
        self._folder = folder
        self._warn = warn
        self._file: Path | None = None
        self._end = 0
        self._is_failing = False
        # A new run says that it starts too: TensorBoard takes the first start for no restart, and hides nothing.
        start = Event(session_log=SessionLog(status=SessionLog.START))
        self._pending = _head() + _records(first_step, [start])

    def write(self, number: int, evaluation: Evaluation, done: Round | None = None) -> None:
        """Write the points of round ``number``; without ``done`` (round 0) the test figures only."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _points(evaluation, done)]
        self._pending += _records(number, [Event(summary=Summary(value=values))])
        self._flush()

    def add(self, number: int, events: Sequence[Event]) -> None:
        """Write what else there is to show of round ``number``: events without time and step; none where writing fails.

        Call it for rounds that are saved: unlike points, not every reader of event files hides these on a resume.
        """
        if events and not self._is_failing:
            self._pending += _records(number, events)
            self._flush()

    def finish(self, number: int, events: Iterable[Event]) -> None:
        """Write what stands at the end of a run whose last round is ``number``, in place of that of an earlier end.

        It has a file of its own: of some records TensorBoard keeps the first that it reads and hides none on a resume.
        """
        try:
            for former in self._folder.glob(f"{PREFIX}*{END}"):
                former.unlink()
            file = _next_file(self._folder)
            write_atomically(file.with_name(file.name + END), _head() + _records(number, events))
        except OSError as error:
            self._tell(error)

    def close(self) -> None:
        """Try once more to write what could not be written."""
        if self._is_failing:
            self._flush()

    def _flush(self) -> None:
        try:
            if self._file is None:
                self._folder.mkdir(exist_ok=True)
                self._file = _next_file(self._folder)
            self._end = append(self._file, self._end, self._pending)
        except OSError as error:
            self._tell(error)
            self._is_failing = True
        else:
            self._pending = b""
            self._is_failing = False

    def _tell(self, error: OSError) -> None:
        if not self._is_failing:
            self._warn(
                f"cannot write {self._folder}: {error.strerror}; the run goes on, and its figures are in metrics.jsonl"
            )


def _points(evaluation: Evaluation, done: Round | None) -> Iterator[tuple[str, float]]:
    yield "test/loss", evaluation.loss
    yield "test/accuracy", evaluation.accuracy
    for label, accuracy in evaluation.class_accuracy.items():
        yield f"test/class_accuracy/{label}", accuracy
    if done is None:
        return
    if math.isfinite(done.train_loss):
        yield "train/loss", done.train_loss
    yield "round/seconds", done.seconds
    yield "round/overhead_seconds", done.overhead_seconds
    for phase, seconds in asdict(done.phases).items():
        if math.isfinite(seconds):
            yield f"round/{phase}_seconds", seconds
    yield "round/nodes", done.num_nodes
    yield "round/rejected", done.num_rejected
    yield "round/clipped", done.num_clipped
    yield "round/late", done.num_late
    yield "link/bytes_up", done.bytes_up
    yield "link/bytes_down", done.bytes_down
    if done.evaluations:
        yield "round/node_accuracy_mean", done.node_accuracy_mean
        yield "round/node_accuracy_worst", done.node_accuracy_worst
    for which, accuracy in done.local_accuracies.items():
        yield f"local/accuracy_{which}", accuracy
    yield from _points_of_nodes(done)


def _points_of_nodes(done: Round) -> Iterator[tuple[str, float]]:
    for each in done.evaluations:
        yield f"node/{each.node}/accuracy", each.accuracy
    for model in done.local_models:
        yield f"node/{model.node}/test_accuracy", model.accuracy
    for report in done.reports:
        if report.verdict == "accepted":  # what a rejected update says of itself means nothing
            yield f"node/{report.node}/train_loss", report.train_loss
            yield f"node/{report.node}/examples", report.examples
            yield f"node/{report.node}/seconds", report.seconds
            if math.isfinite(report.norm):
                yield f"node/{report.node}/update_norm", report.norm


def _head() -> bytes:
    return _records(0, [Event(file_version=FILE_VERSION)])


def _records(step: int, events: Iterable[Event]) -> bytes:
    buffer = BytesIO()
    for event in events:
        event.wall_time, event.step = time.time(), step
        RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


def _next_file(folder: Path) -> Path:
    """A new event file that sorts after all others: TensorBoard reads them in the order of their names."""
    stamps = [int(path.name.removeprefix(PREFIX)[:10]) for path in folder.glob(f"{PREFIX}{'[0-9]' * 10}.*")]
    # After a reboot without a network the clock of a Pi may be behind its last file.
    stamp = max([int(time.time()), *(former + 1 for former in stamps)])
    return folder / f"{PREFIX}{stamp:010d}.{socket.gethostname()}.{os.getpid()}.0"
