"""Rule: workers are forked where that is safe, begin deaf to signals, and end when their simulation does."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server import workers

ROOT = Path(__file__).resolve().parent.parent.parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned")
HOW = """
import os, sys, threading
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as python -m server sets it, before NumPy is imported
from server.workers import _context

end = threading.Event()
if sys.argv[1] == "two threads":
    threading.Thread(target=end.wait).start()
print(_context().get_start_method())
end.set()
"""
TWO = """
import os
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import psutil
from server.simulation import Simulation

if __name__ == "__main__":
    children = psutil.Process().children
    with Simulation("tests.bad_apps:fails", 2, num_workers=2):
        with Simulation("tests.bad_apps:fails", 2, num_workers=2):
            print(len(children()))
        print(len(children()))
    print(len(children()))
"""


@linux
@pytest.mark.parametrize(("threads", "method"), [("one thread", "fork"), ("two threads", "spawn")])
def test_only_a_process_with_one_thread_is_forked(threads: str, method: str) -> None:
    assert said(HOW, threads) == [method]


@linux
def test_workers_end_with_their_own_simulation_also_beside_others() -> None:
    """A fork has the pipes of all workers before it: none may wait for them to be closed."""
    assert said(TWO) == ["4", "2", "0"]


def test_what_starts_meanwhile_hears_no_signal() -> None:
    numbers = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with workers._signals_held_back():
        assert numbers <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def said(script: str, *arguments: str) -> list[str]:
    """What it prints, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
