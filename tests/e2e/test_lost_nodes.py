"""Rule: a node killed, frozen or late costs the run no more than its own update, and may come back."""

import signal
import time
from typing import Any

from tests.e2e.processes import Federation, Process, Server
from tests.e2e.runs import verdicts_of

NOTICED_WITHIN_SECONDS = 15.0


def test_a_client_killed_mid_round_does_its_task_when_it_is_back(federation: Federation) -> None:
    # 600 steps: the kill comes while it trains
    server = federation.serve("--rounds", "1", settings=["training.local_epochs=60"])
    a, b = federation.clients(server, "--once")
    server.wait_event("progress", node="b")
    b.send(signal.SIGKILL)
    server.wait_event("left", node="b")

    again = federation.client(server, "--shard", "1", "--name", "b", "--once")

    assert [process.exit_code() for process in (server, a, again)] == [0, 0, 0], (server, a, again)
    assert verdicts_of(server.run_dir) == [(1, "a", "accepted"), (1, "b", "accepted")]
    assert [event["node"] for event in server.events if event["event"] == "joined"].count("b") == 2


def test_a_round_goes_on_without_a_node_that_is_late(federation: Federation) -> None:
    server = federation.serve("--rounds", "1000", settings=["federation.round_deadline_seconds=3"])
    _, b = federation.clients(server)
    wait_round(server, num_nodes=2)

    freeze(server, b)
    wait_round(server, num_nodes=1, set_aside=[{"node": "b", "verdict": "expired", "reason": "no update within 3 s"}])
    wait_round(server, num_nodes=1, num_expired=0)  # who hangs is not asked again
    b.send(signal.SIGCONT)
    b.wait_line("dropped, the server no longer waits for it$|; trying again$")  # by how long it was frozen
    wait_round(server, num_nodes=2)


def test_frozen_and_dead_peers_are_noticed(federation: Federation) -> None:
    server = federation.serve("--rounds", "1000", settings=["federation.rejoin_seconds=1"])
    frozen_server = federation.serve("--rounds", "1000", "--clients", "1")
    _, frozen = federation.clients(server)
    client = federation.client(frozen_server, "--shard", "0", "--name", "c")
    wait_round(frozen_server, num_nodes=1)
    wait_round(server, num_nodes=2)

    frozen_server.send(signal.SIGSTOP)
    frozen_at = time.monotonic()
    mark, line = len(server.events), len(client.out)
    freeze(server, frozen)
    left = server.wait_event("left", NOTICED_WITHIN_SECONDS, since=mark, node="b")
    client.wait_line("; trying again$", NOTICED_WITHIN_SECONDS - (time.monotonic() - frozen_at), since=line)

    reason = f"{left['reason']}, and it was not back within 1 s"
    wait_round(server, num_nodes=1, set_aside=[{"node": "b", "verdict": "expired", "reason": reason}])
    wait_round(server, num_nodes=1, num_expired=0)
    frozen.send(signal.SIGCONT)
    frozen_server.send(signal.SIGCONT)
    wait_round(server, num_nodes=2)
    client.wait_line("joined .* as c with shard 0 of 200$", since=line)
    wait_round(frozen_server, num_nodes=1)

    mark = len(server.events)
    freeze(server, frozen)
    frozen.send(signal.SIGKILL)
    left = server.wait_event("left", since=mark, node="b")
    reason = f"{left['reason']}, and it was not back within 1 s"
    wait_round(server, num_nodes=1, set_aside=[{"node": "b", "verdict": "expired", "reason": reason}])
    wait_round(server, num_nodes=1, num_expired=0)


def wait_round(server: Server, **figures: Any) -> None:
    """Wait until a round with these figures is done from now on."""
    server.wait_event("round_done", since=len(server.events), **figures)


def freeze(server: Server, b: Process) -> None:
    """Freeze node b when it has delivered, and wait until the next task is out, on which it will not work."""
    delivered = server.wait_event("delivered", node="b", since=len(server.events))
    b.send(signal.SIGSTOP)
    server.wait_event("round_started", since=server.after(delivered))
