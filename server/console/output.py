"""A text stream that never fails a run: closed pipes, dead terminals and ASCII are its own affair."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable
from typing import TextIO

_ASCII = str.maketrans({"★": "*", "·": "-", "–": "-", "—": "-", "×": "x", "…": "...", "━": "-", "→": ">"})


class Output(io.TextIOBase):
    """Writes through to ``stream`` from any thread; after the first failure it swallows what it is given."""

    def __init__(self, stream: TextIO | None) -> None:
        # None is what Python makes of a standard stream that was closed before it started.
        self._stream = io.StringIO() if stream is None else stream
        self._lock = threading.RLock()
        self._is_open = stream is not None

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here, and rich asks for it
        """The encoding of the stream; UTF-8 where it names none."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def is_open(self) -> bool:
        """Whether what is written still goes anywhere."""
        return self._is_open

    def isatty(self) -> bool:
        """Whether a person looks at a terminal there."""
        return not self._stream.closed and self._stream.isatty()

    def line(self, text: str) -> None:
        """Write one line, whole, and flush it."""
        self.write(f"{text}\n")
        self.flush()

    def write(self, text: str) -> int:
        """Write ``text``; characters that the stream cannot show are replaced."""
        self._attempt(lambda: self._stream.write(self._shown(text)))
        return len(text)

    def flush(self) -> None:
        """Hand everything written to the system."""
        self._attempt(self._stream.flush)

    def end(self) -> None:
        """Show nothing from here on."""
        self.flush()
        with self._lock:
            self._is_open = False

    def _attempt(self, action: Callable[[], object]) -> None:
        with self._lock:
            if not self._is_open:
                return
            try:
                action()
            except (OSError, ValueError):  # the reader, the terminal or the file is gone
                self._is_open = False
                self._drain()
            except RuntimeError:
                pass  # a signal handler spoke in the middle of a write: its line is lost, the stream is not

    def _shown(self, text: str) -> str:
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return text.translate(_ASCII).encode(self.encoding, "replace").decode(self.encoding)
        return text

    def _drain(self) -> None:
        # What is still buffered would fail again when the interpreter flushes at exit, with exit code 120.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
