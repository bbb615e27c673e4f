"""Turns to send something large: gRPC copies what it sends, so a thousand nodes at once would be a thousand copies."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from server.link.turns import Turns

MAX_BYTES = 4 * 1024 * 1024  # of copies on their way, where that makes MIN_AT_ONCE or more
MIN_AT_ONCE = 8  # so that a few nodes that have stopped reading hold up nobody else
# Then a turn passes on, lest nodes that show that they live, but read nothing, keep all turns for good. Who only reads
# slowly is sent the rest beside what comes next.
TURN_SECONDS, TURN_BYTES_A_SECOND = 1.0, 1024 * 1024  # whichever is longer


class Sends:
    """Used from the link's thread alone."""

    def __init__(self, message_bytes: int) -> None:
        """For messages of about so many bytes."""
        seconds = max(TURN_SECONDS, message_bytes / TURN_BYTES_A_SECOND)
        self._turns = Turns(max(MIN_AT_ONCE, MAX_BYTES // message_bytes), seconds)

    @asynccontextmanager
    async def turn(self, seconds: float, meanwhile: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Wait for a turn and have it, for a while; every ``seconds`` of waiting, do ``meanwhile``."""
        turn = await (self._wait(seconds, meanwhile) if self._turns.are_all_taken else self._turns.take())
        try:
            yield
        finally:
            turn.cancel()  # perhaps it is over: it is given back once

    async def _wait(self, seconds: float, meanwhile: Callable[[], Awaitable[None]]) -> asyncio.Future[None]:
        coming = asyncio.ensure_future(self._turns.take())
        try:
            while not (await asyncio.wait({coming}, timeout=seconds))[0]:
                await meanwhile()
        except BaseException:
            if not coming.cancel():  # the turn had come just then
                coming.result().cancel()
            raise
        return coming.result()
