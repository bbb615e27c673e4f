"""The asyncio loop that carries the links of this process, in one thread however many there are."""

import asyncio
import threading

_STARTING = threading.Lock()
_LOOPS: list[asyncio.AbstractEventLoop] = []  # none or one


def link_loop() -> asyncio.AbstractEventLoop:
    """The loop; started by the first call, it runs until the process ends."""
    with _STARTING:
        if not _LOOPS:
            _LOOPS.append(asyncio.new_event_loop())
            threading.Thread(target=_LOOPS[0].run_forever, name="links", daemon=True).start()
        return _LOOPS[0]
