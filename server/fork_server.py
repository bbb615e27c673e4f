"""The process that a simulation's workers are forked from: what they need is imported there, once for all of them.

``python -m server`` begins it before its own imports, so that both go on side by side.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext

SIGNALS = {signal.SIGINT, signal.SIGTERM}

_IMPORTED = ["server.preloaded"]


def begin() -> ForkServerContext | SpawnContext:
    """Begin to import in a process of its own, unless that is done; returns how workers are to be started.

    Not on macOS, whose own libraries do not bear a fork: there every worker imports for itself.
    """
    resource_tracker.ensure_running()  # first: its start lets signals through again
    with signals_held_back():
        if sys.platform != "linux":
            return multiprocessing.get_context("spawn")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        forkserver.ensure_running()
        return context


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Processes started meanwhile begin with Ctrl-C and SIGTERM blocked; what comes here comes a moment later."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
