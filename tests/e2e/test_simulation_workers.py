"""Rule: worker processes hear no signal but their server's end, and never outlive it."""

import os
import signal
import time

import psutil

from server.stopping import TWICE_SECONDS
from tests.e2e.processes import LONG, PATIENCE_SECONDS, TINY, Federation, Server, as_flags

WORKERS = ("--simulate", "2", *as_flags([*TINY, "simulation.workers=2"]))


def test_a_signal_to_the_whole_group_finishes_the_round(federation: Federation) -> None:
    server = federation.server(*WORKERS, "--rounds", "3")
    server.wait_event("round_started", round=1)
    workers_of(server)  # they have begun to start
    os.killpg(server.pid, signal.SIGTERM)

    assert server.exit_code() == 130, server
    hint = f"continue with: python -m server --resume {server.run_dir}"
    assert server.err == [f"Interrupted: round 1 is saved; {hint}"]
    assert server.wait_event("round_done", round=1)["set_aside"] == []


def test_workers_end_with_their_server_however_it_ends(federation: Federation) -> None:
    stopped, killed = (federation.server(*WORKERS, *as_flags(LONG)) for _ in range(2))
    orphans = workers_of(stopped) + workers_of(killed)
    killed.send(signal.SIGKILL)
    stopped.send(signal.SIGINT)
    stopped.wait_event("notice")
    time.sleep(TWICE_SECONDS)
    stopped.send(signal.SIGINT)

    assert stopped.exit_code() == 130, stopped  # LONG is hours: the fits in hand were given up
    assert len(stopped.err) == 1
    assert psutil.wait_procs(orphans, PATIENCE_SECONDS)[1] == []
    assert killed.exit_code() == -signal.SIGKILL
    assert killed.err == []


def workers_of(server: Server) -> list[psutil.Process]:
    """Its two workers, as soon as they are there."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        children = psutil.Process(server.pid).children()
        if len(found := [child for child in children if is_worker(child)]) == 2:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no two workers: {server}")


def is_worker(child: psutil.Process) -> bool:
    """Each leads a group of its own."""
    try:
        return os.getpgid(child.pid) == child.pid
    except ProcessLookupError:
        return False  # another child, the one that converts MNIST, has just ended
