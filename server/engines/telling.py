"""What a ServerApp on a SuperLink can tell who submitted it: lines of a log, and one exception's text.

The log is shared with Flower and with everything that is imported, so each line of ours carries a
mark. Flower reports of a failed run only the text of its exception, so the exit code rides in it.
"""

import io
import re
from typing import TextIO, cast

from common.errors import FedgeError, Interrupted, RunFailed, UsageError

MARK = "fedge: "
_FLOWERS_WORDS = "ServerApp failed with exception: "
_KINDS: dict[int, type[FedgeError]] = {kind.exit_code: kind for kind in (RunFailed, UsageError, Interrupted)}


def marked(stream: TextIO) -> TextIO:
    """Writes to ``stream`` with the mark in front of every line; give it whole lines."""
    return cast(TextIO, _MarkedLines(stream))


class _MarkedLines(io.TextIOBase):
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        """That of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write the lines of ``text``."""
        self._stream.write("".join(f"{MARK}{line}" for line in text.splitlines(keepends=True)))
        return len(text)

    def flush(self) -> None:
        """Hand everything written to the system."""
        self._stream.flush()


def unmarked(line: str) -> str | None:
    """The text of a line of ours; None if it is another's."""
    return line.removeprefix(MARK).rstrip() if line.startswith(MARK) else None


def to_exception(error: FedgeError) -> RuntimeError:
    """What to raise out of a ServerApp: never SystemExit, of which Flower reports nothing."""
    return RuntimeError(f"{error} [exit {error.exit_code}]")


def from_details(details: str) -> FedgeError:
    """The error that Flower's words about a failed run stand for; foreign ones are a failed run."""
    text = details.removeprefix(_FLOWERS_WORDS).strip() or "the SuperLink does not say why"
    if tagged := re.fullmatch(r"(.*) \[exit (\d+)\]", text, re.DOTALL):
        return _KINDS.get(int(tagged[2]), RunFailed)(tagged[1])
    return RunFailed(text)
