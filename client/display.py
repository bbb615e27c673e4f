"""What a person beside the node sees: a line for every event, and one passing line while it trains."""

import sys
import time
from contextlib import suppress

from common.texts import one_line

INTERVAL_SECONDS = 0.2  # between two passing lines


class Display:
    """Lines on standard output; whoever closed it misses them."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._shown_at = 0.0
        self._is_showing = False

    def tell(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        self._write(f"{time.strftime('%H:%M:%S')} {one_line(text)}\n")

    def show(self, text: str) -> None:
        """A passing line, on a terminal only; '' takes it away."""
        if not self._is_terminal:
            return
        if not text:
            self._clear()
        elif time.monotonic() - self._shown_at >= INTERVAL_SECONDS:
            self._shown_at, self._is_showing = time.monotonic(), True
            self._write(f"\r\033[K{one_line(text)}")

    def _clear(self) -> None:
        if self._is_showing:
            self._is_showing = False
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            encoding = sys.stdout.encoding or "utf-8"
            sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
            sys.stdout.flush()
