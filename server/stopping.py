"""Ctrl-C and SIGTERM: the first finishes the round, the second stops now."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from common.errors import Interrupted


class StopRequest:
    """Whether a person or the system asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def on_signals(self, tell: Callable[[str], None]) -> Iterator["StopRequest"]:
        """Listen to SIGINT and SIGTERM while the context lasts; from the main thread."""

        def receive(number: int, _: FrameType | None) -> None:
            if self.requested:
                raise Interrupted("stopped at once")
            self.requested = True
            tell(f"{signal.Signals(number).name}: stopping after this round; once more to stop now")

        former = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
