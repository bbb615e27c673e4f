"""Ctrl-C and SIGTERM: the first finishes the round, the second stops now."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from common.errors import Interrupted

TWICE_SECONDS = 0.1  # closer together, two signals are one: `timeout` sends it to its child and to the group


class StopRequest:
    """Whether a person or the system asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._asked_at = 0.0

    @contextmanager
    def on_signals(self, tell: Callable[[str], None]) -> Iterator["StopRequest"]:
        """Listen to SIGINT and SIGTERM while the context lasts; from the main thread."""

        def receive(number: int, _: FrameType | None) -> None:
            if self.requested:
                if time.monotonic() - self._asked_at < TWICE_SECONDS:
                    return
                raise Interrupted("stopped at once")
            self.requested, self._asked_at = True, time.monotonic()
            tell(f"{signal.Signals(number).name}: stopping after this round; once more to stop now")

        former = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
