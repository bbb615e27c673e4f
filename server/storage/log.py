"""``run.log``: what every logger of this process says while a run lasts, one line a message."""

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from common.texts import one_line


@contextlib.contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Append everything logged at INFO and above to ``path``; the file is closed at the end.

    Raises:
        OSError: the file cannot be opened. Later failures only cost lines: the run goes on.
    """
    handler = _Lines(path, encoding="utf-8")
    handler.setFormatter(_Stamped("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO)
    root = logging.getLogger()
    level_before = root.level
    root.setLevel(min(level_before, logging.INFO))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level_before)
        with contextlib.suppress(OSError):  # lines that a full disk did not take
            handler.close()


class _Lines(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Lose the line: logging's default prints a traceback to the terminal for every one."""


class _Stamped(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's name
        """ISO 8601 with the offset from UTC."""
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """One line: a message may quote a node, which must not write lines of its own here."""
        return one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """The message, and below it the traceback if there is one, moved in so that no line looks like a message."""
        message, *traceback = super().format(record).splitlines()
        return "\n".join([message, *(f"  {one_line(line)}" for line in traceback)])
