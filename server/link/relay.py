"""Passes what happens on the link to a listener, from a thread of its own.

A terminal that is paused (Ctrl-S, a pager) blocks whoever writes to it. Were that the link's thread,
every node would find the server silent and leave.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

PAUSE_SECONDS = 0.02  # once all is told: a person reads no faster, and to wake for each event holds up the link
MAX_WAITING = 10_000  # events; beyond that, news of progress is dropped first


class Listener(Protocol):
    """Told what happens on the link."""

    def joined(self, node: str, shard: int, address: str) -> None:
        """A node joined."""

    def left(self, node: str, reason: str) -> None:
        """A node's link ended."""

    def progress(self, node: str, fraction: float) -> None:
        """A node has done this much of its task."""

    def delivered(self, node: str) -> None:
        """A node's update arrived."""

    def notice(self, text: str) -> None:
        """Something to know that ends no link."""


class Relay:
    """A Listener in front of another: it never blocks, and keeps the order of events."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        # A simple one, bounded in `_put`: it takes a hundredth of the link's time that a Queue takes.
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._pass_on, name="relay", daemon=True)
        self._thread.start()

    def joined(self, node: str, shard: int, address: str) -> None:
        """See ``Listener``."""
        self._put(lambda: self._listener.joined(node, shard, address))

    def left(self, node: str, reason: str) -> None:
        """See ``Listener``."""
        self._put(lambda: self._listener.left(node, reason))

    def progress(self, node: str, fraction: float) -> None:
        """See ``Listener``."""
        if self._events.qsize() < MAX_WAITING // 2:
            self._put(lambda: self._listener.progress(node, fraction))

    def delivered(self, node: str) -> None:
        """See ``Listener``."""
        self._put(lambda: self._listener.delivered(node))

    def notice(self, text: str) -> None:
        """See ``Listener``."""
        self._put(lambda: self._listener.notice(text))

    def close(self, seconds: float = 2.0) -> None:
        """Pass on what waits, for ``seconds`` at most."""
        self._put(None)
        self._thread.join(seconds)

    def _put(self, event: Callable[[], None] | None) -> None:
        if self._events.qsize() < MAX_WAITING:  # else nobody has read the terminal for thousands of events
            self._events.put(event)

    def _pass_on(self) -> None:
        while (event := self._events.get()) is not None:
            event()
            if self._events.empty():
                time.sleep(PAUSE_SECONDS)
