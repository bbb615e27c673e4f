"""Rule: however a server ends, what it learned is kept, and resumed it comes to the same models, bit for bit."""

import os
import resource
import signal
import time
from pathlib import Path

from server.stopping import TWICE_SECONDS
from tests.e2e.processes import Federation, hold_round
from tests.e2e.runs import assert_same_learning, rounds_of


def test_a_killed_server_goes_on_where_it_was(federation: Federation, simulated: Path) -> None:
    server = federation.serve("--name", "run")
    nodes = federation.clients(server, "--once")
    hold_round(server, nodes[1], after=1)
    server.send(signal.SIGKILL)
    server.exit_code()
    nodes[1].send(signal.SIGCONT)

    second = federation.resume()
    hold_round(second, nodes[1], after=3)
    second.send(signal.SIGKILL)
    second.exit_code()
    nodes[1].send(signal.SIGCONT)
    assert rounds_of(federation.out / "run") == [0, 1, 2, 3]

    third = federation.resume(str(federation.out / "run"))

    assert [process.exit_code() for process in (third, *nodes)] == [0, 0, 0], (third, *nodes)
    assert [(s.wait_event("started")["first_round"], s.run_dir) for s in (second, third)] == [
        (2, federation.out / "run"),
        (4, federation.out / "run"),
    ]
    assert_same_learning(federation.out / "run", simulated)


def test_signals_finish_the_round_or_end_it_now(federation: Federation, simulated: Path) -> None:
    server = federation.serve("--name", "run")
    run = server.run_dir
    hint = f"continue with: python -m server --resume {run}"
    a, b = federation.clients(server)
    hold_round(server, b, after=1)
    server.send(signal.SIGTERM)
    server.wait_event("notice", text="SIGTERM: stopping after this round; once more to stop now")
    b.send(signal.SIGCONT)
    assert server.exit_code() == 130, server
    assert server.err == [f"Interrupted: round 2 is saved; {hint}"]
    assert rounds_of(run) == [0, 1, 2]

    second = federation.resume()
    hold_round(second, b, after=3)
    second.send(signal.SIGINT)
    second.wait_event("notice", text="SIGINT: stopping after this round; once more to stop now")
    time.sleep(TWICE_SECONDS)
    second.send(signal.SIGINT)
    assert second.exit_code() == 130, second
    assert second.err == [f"Interrupted: stopped at once; {hint}"]
    assert rounds_of(run) == [0, 1, 2, 3]
    b.send(signal.SIGCONT)

    third = federation.resume()

    assert third.exit_code() == 0, third
    assert_same_learning(run, simulated)
    for node in (a, b):
        node.wait_line("the server says: the run ended: round 2 is saved$")
        node.wait_line("the server says: the run is done, best accuracy ")


def test_a_full_disk_and_a_damaged_checkpoint_cost_no_saved_round(federation: Federation, simulated: Path) -> None:
    server = federation.serve("--name", "run")
    run = server.run_dir
    nodes = federation.clients(server)
    hold_round(server, nodes[1], after=2)
    # Files of this process cannot grow past 100 kB any more: logs fit, last.pt does not.
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    nodes[1].send(signal.SIGCONT)
    assert server.exit_code() == 1, server
    # Where coverage is measured, it adds that it cannot write its own file either.
    assert server.err[:2] == [
        f"Error: cannot write {run}/last.pt: File too large; the run is saved up to round 2",
        f"free space and continue with: python -m server --resume {run}",
    ]
    assert len(server.err) == 2 or "COVERAGE_PROCESS_CONFIG" in os.environ, server
    assert list(run.glob(".*.tmp")) == []

    (run / "last.pt").write_bytes((run / "last.pt").read_bytes()[:-1000])
    second = federation.resume()
    second.wait_event("notice", text=f"{run}/last.pt is damaged: continuing from last.prev.pt, after round 1")

    assert second.exit_code() == 0, second
    assert_same_learning(run, simulated)
