"""The relay never blocks the link's thread and keeps the order of events."""

import threading

from server.link import relay
from server.link.relay import Relay


class Slow:
    """A listener that hangs, as a paused terminal does, until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.heard: list[str] = []

    def joined(self, node: str, shard: int, address: str) -> None:
        self.go.wait(10)
        self.heard.append(f"joined {node} {shard} {address}")

    def left(self, node: str, reason: str) -> None:
        self.heard.append(f"left {node} {reason}")

    def progress(self, node: str, fraction: float) -> None:
        self.heard.append(f"progress {node} {fraction}")

    def delivered(self, node: str) -> None:
        self.heard.append(f"delivered {node}")

    def notice(self, text: str) -> None:
        self.heard.append(f"notice {text}")


def test_events_wait_for_a_listener_that_hangs_and_come_in_order() -> None:
    slow = Slow()
    passing = Relay(slow)
    passing.joined("a", 1, "here")
    passing.progress("a", 0.5)
    passing.delivered("a")
    passing.notice("mind the disk")
    passing.left("a", "done")
    assert slow.heard == []
    slow.go.set()
    passing.close()
    assert slow.heard == ["joined a 1 here", "progress a 0.5", "delivered a", "notice mind the disk", "left a done"]


def test_when_too_many_wait_progress_is_dropped_before_anything_else() -> None:
    slow = Slow()
    passing = Relay(slow)
    passing.joined("a", 1, "here")
    for _ in range(relay.MAX_WAITING):
        passing.progress("a", 0.5)
    passing.left("a", "done")
    slow.go.set()
    passing.close()
    assert slow.heard[-1] == "left a done"
    assert len(slow.heard) <= relay.MAX_WAITING // 2 + 2
