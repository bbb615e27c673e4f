"""Turns that pass on by themselves: so many do something large at once, and none of them for good."""

import asyncio


class Turns:
    """Used from the link's thread alone."""

    def __init__(self, number: int, seconds: float) -> None:
        """For so many at once, each for so long at most."""
        self._free, self._seconds = asyncio.Semaphore(number), seconds

    @property
    def are_all_taken(self) -> bool:
        """Whether who wants one now has to wait."""
        return self._free.locked()

    async def take(self) -> asyncio.Future[None]:
        """Wait for a turn, first come, first served. It begins now; cancelling it gives it back sooner, and once."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        end = loop.call_later(self._seconds, turn.cancel)

        def over(_: asyncio.Future[None]) -> None:
            end.cancel()
            self._free.release()

        turn.add_done_callback(over)
        return turn
