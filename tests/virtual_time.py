"""An asyncio loop whose clock stands still while anything can happen, and then moves on to what is due next."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

PATIENCE_SECONDS = 30.0  # of the world
Result = TypeVar("Result")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time has nothing to do with that of the world; it begins at 0."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Impatient(self))

    def time(self) -> float:
        return self._now

    def pass_by(self, seconds: float) -> None:
        """Let time pass at once."""
        self._now += seconds


class _Impatient(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # only a thread can go on from here
            found = super().select(PATIENCE_SECONDS)
            assert found, "nothing is due, ever"
            return found
        self._loop.pass_by(max(0.0, timeout))
        return super().select(0)


def in_virtual_time(work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` to its end; hours of waiting take no time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
