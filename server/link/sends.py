"""Turns to send something large: gRPC copies what it sends, so a thousand nodes at once would be a thousand copies."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

MAX_BYTES = 4 * 1024 * 1024  # of copies on their way, where that makes MIN_AT_ONCE or more
MIN_AT_ONCE = 8  # so that a few nodes that have stopped reading hold up nobody else


class Sends:
    """Used from the link's thread alone."""

    def __init__(self, message_bytes: int) -> None:
        """For messages of about so many bytes."""
        self._turns = asyncio.Semaphore(max(MIN_AT_ONCE, MAX_BYTES // message_bytes))

    @asynccontextmanager
    async def turn(self, seconds: float, meanwhile: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Wait for a turn, first come, first served, and have it; every ``seconds`` of waiting, do ``meanwhile``."""
        if self._turns.locked():
            await self._wait(seconds, meanwhile)
        else:
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()

    async def _wait(self, seconds: float, meanwhile: Callable[[], Awaitable[None]]) -> None:
        coming = asyncio.ensure_future(self._turns.acquire())
        try:
            while not (await asyncio.wait({coming}, timeout=seconds))[0]:
                await meanwhile()
        except BaseException:
            if not coming.cancel():  # the turn had come just then
                self._turns.release()
            raise
