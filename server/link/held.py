"""How many streams of each node gRPC still holds: one that ended stays, with what it was sent, until it is read."""

from collections import Counter

import grpc

MAX_STREAMS = 4  # of a node: the one that it has, and three whose end it has not seen yet
TOO_MANY = f"this node has {MAX_STREAMS} links that have ended or that it does not read: it may join when one is gone"


class Held:
    """Used from the link's thread alone."""

    def __init__(self) -> None:
        self._numbers: Counter[tuple[str, str]] = Counter()  # by name and key: in plaintext any name can be claimed

    def keep(self, name: str, key: str, stream: "grpc.aio.ServicerContext[bytes, bytes]") -> bool:
        """Count one more stream until gRPC lets go of it; False: these would be too many."""
        node = (name, key)
        if self._numbers[node] >= MAX_STREAMS:
            return False
        self._numbers[node] += 1
        stream.add_done_callback(lambda _: self._let_go(node))  # type: ignore[arg-type]  # the stub has no Protocol
        return True

    def _let_go(self, node: tuple[str, str]) -> None:
        self._numbers[node] -= 1
        if not self._numbers[node]:
            del self._numbers[node]
