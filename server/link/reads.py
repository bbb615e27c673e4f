"""Lets the updates of a large federation in by turns: what the server has no time to read yet waits with its node.

gRPC reads on while the link's thread waits for the interpreter: of a thousand nodes, dozens of updates at once.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.link.turns import Turns

MAX_UNREAD_BYTES = 32 * 1024 * 1024  # where the updates of all nodes are no more, none waits
MAX_BYTES = 4 * 1024 * 1024  # of updates on their way in, where that makes MIN_AT_ONCE or more
MIN_AT_ONCE = 8
TURN_SECONDS = 0.05  # then it passes on: a node that sends slowly, or not at all, holds up nobody for longer
# Of each connection: what comes before it is asked for, which gRPC would raise with its speed, and TLS's frame.
OPTIONS = (
    ("grpc.http2.lookahead_bytes", 8 * 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.tsi.max_frame_size", 4 * 1024),
)


class Reads:
    """Used from the link's thread alone."""

    def __init__(self, message_bytes: int, num_nodes: int) -> None:
        """For so many nodes, and updates of about so many bytes."""
        self._are_many = num_nodes * message_bytes > MAX_UNREAD_BYTES
        self._turns = Turns(max(MIN_AT_ONCE, MAX_BYTES // message_bytes), TURN_SECONDS)

    @property
    def options(self) -> tuple[tuple[str, int], ...]:
        """For the server's side of the connections."""
        return OPTIONS if self._are_many else ()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and have it, for a while."""
        if not self._are_many:
            yield
            return
        turn = await self._turns.take()
        try:
            yield
        finally:
            turn.cancel()  # perhaps it is over: it is given back once
