"""Rule: a node killed, frozen or late costs the run no more than its own update, and may come back."""

import signal
import time
from typing import Any

from tests.e2e.processes import Federation, Process, Server
from tests.e2e.runs import verdicts_of

NOTICED_WITHIN_SECONDS = 15.0
LASTING = "training.local_epochs=12"  # who hears that a node has delivered can stop it before it delivers again
Event = dict[str, Any]


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
    server = federation.serve("--rounds", "1000", settings=["federation.round_deadline_seconds=5", LASTING])
    _, b = federation.clients(server)
    wait_round(server, num_nodes=2)

    frozen = freeze(server, b)
    expired = {"node": "b", "verdict": "expired", "reason": "no update within 5 s, nor in 2 more rounds"}
    late = wait_round(server, frozen, num_nodes=1, set_aside=[expired])
    without = wait_round(server, late, num_nodes=1, num_expired=0)  # who hangs is not asked again
    b.send(signal.SIGCONT)
    b.wait_line("dropped, the server no longer waits for it$|; trying again$")  # by how long it was frozen
    wait_round(server, without, num_nodes=2)


def test_frozen_and_dead_peers_are_noticed(federation: Federation) -> None:
    server = federation.serve("--rounds", "1000", settings=["federation.rejoin_seconds=1", LASTING])
    frozen_server = federation.serve("--rounds", "1000", "--clients", "1")
    _, frozen = federation.clients(server)
    client = federation.client(frozen_server, "--shard", "0", "--name", "c")
    wait_round(frozen_server, num_nodes=1)
    wait_round(server, num_nodes=2)

    frozen_server.send(signal.SIGSTOP)
    frozen_at, line = time.monotonic(), len(client.out)
    started = freeze(server, frozen)
    left = server.wait_event("left", NOTICED_WITHIN_SECONDS, since=server.after(started), node="b")
    client.wait_line("; trying again$", NOTICED_WITHIN_SECONDS - (time.monotonic() - frozen_at), since=line)

    without = wait_round_without_b(server, left)
    frozen.send(signal.SIGCONT)
    frozen_server.send(signal.SIGCONT)
    again = wait_round(server, without, num_nodes=2)
    client.wait_line("joined .* as c with shard 0 of 200$", since=line)
    wait_round(frozen_server, num_nodes=1)

    started = freeze(server, frozen, again)
    frozen.send(signal.SIGKILL)
    wait_round_without_b(server, server.wait_event("left", since=server.after(started), node="b"))


def wait_round(server: Server, earlier: Event | None = None, **figures: Any) -> Event:
    """The first round with these figures that is done after ``earlier``, or from now on."""
    since = len(server.events) if earlier is None else server.after(earlier)
    return server.wait_event("round_done", since=since, **figures)


def wait_round_without_b(server: Server, left: Event) -> Event:
    """The round after the one in which b's task expired because it left and did not return, nor deliver late."""
    without = wait_round(server, left, num_nodes=1, num_expired=1)
    (expired,) = without["set_aside"]
    assert (expired["node"], expired["verdict"]) == ("b", "expired")
    never = ", and it was not back within 1 s, nor in 2 more rounds"
    # It may be gone in the moment before its task goes out.
    assert expired["reason"] in {f"{left['reason']}{never}", f"it left{never}"}
    return wait_round(server, without, num_nodes=1, num_expired=0)


def freeze(server: Server, b: Process, earlier: Event | None = None) -> Event:
    """Freeze node b when it has delivered; returns the start of the next round, on whose task it will not work."""
    since = len(server.events) if earlier is None else server.after(earlier)
    delivered = server.wait_event("delivered", node="b", since=since)
    b.send(signal.SIGSTOP)
    return server.wait_event("round_started", since=server.after(delivered))
