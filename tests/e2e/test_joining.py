"""Rule: a client waits for its server, says where; it leaves within 5 s; a shard has one node, and a node its shard."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.admission.passport import Control
from tests.e2e.processes import LONG, ROOT, TINY, Federation, Process, Server, as_flags, free_port

LEAVES_WITHIN_SECONDS = 5.0


def test_a_client_waits_for_its_server_and_leaves_when_asked(federation: Federation) -> None:
    address = f"127.0.0.1:{free_port()}"
    early = [federation.client(address, "--shard", str(shard), "--name", f"node-{shard}") for shard in (0, 1, 2)]
    for client in early:
        client.wait_line(rf"server {address}, named with --server$")
        client.wait_line(rf"{address}: no server answers there; trying again$")
    early[2].send(signal.SIGTERM)
    assert early[2].exit_code(LEAVES_WITHIN_SECONDS) == 130, early[2]

    server = federation.serve("--port", address.rpartition(":")[2])

    early[0].wait_line(rf"joined {address} as node-0 with shard 0 of 200$")
    early[1].wait_line(rf"joined {address} as node-1 with shard 1 of 200$")
    del server


def test_signals_end_a_client_that_waits_or_trains(federation: Federation) -> None:
    server = federation.serve("--clients", "3", settings=[*LONG, "federation.rejoin_seconds=600"])
    a, b = federation.clients(server)
    for name, client, number in (("a", a, signal.SIGINT), ("b", b, signal.SIGTERM)):
        server.wait_event("joined", node=name)
        assert_leaves(server, name, client, number)

    nodes = {name: federation.client(server, "--shard", name[-1], "--name", name) for name in ("c0", "c1", "c2")}
    for name in nodes:
        server.wait_event("progress", node=name)
    assert_leaves(server, "c0", nodes["c0"], signal.SIGINT)
    assert_leaves(server, "c1", nodes["c1"], signal.SIGTERM)


def assert_leaves(server: Server, name: str, client: Process, number: signal.Signals) -> None:
    client.send(number)
    assert client.exit_code(LEAVES_WITHIN_SECONDS) == 130, client
    assert client.out[-1].endswith(" stopped")
    assert client.err == []
    server.wait_event("left", node=name, reason="it was stopped")


def test_a_shard_has_one_node_and_a_node_its_shard(federation: Federation) -> None:
    server = federation.serve("--clients", "9", settings=["data.num_shards=10"])
    first = federation.client(server, "--shard", "3")
    name = re.sub(".* as ([^ ]+) .*", r"\1", first.wait_line("joined .* with shard 3 of 10$"))

    twin = federation.client(server, "--shard", "3")
    other = federation.client(server, "--shard", "auto")
    beyond = federation.client(server, "--shard", "12")

    other.wait_line("joined .* with shard [0-24-9] of 10$")
    assert [twin.exit_code(), beyond.exit_code()] == [2, 2]
    refused = "python -m client: the server refuses this node: "
    taken = f"{refused}shard 3 is held by node {name}: take another with --shard auto or one of: "
    assert len(twin.err) == 1
    assert twin.err[0].startswith(taken)
    assert beyond.err == [
        f"{refused}shard 12 does not exist: the training set is divided into 10 shards, 0 to 9",
    ]

    mark = len(server.events)
    first.send(signal.SIGKILL)
    first.exit_code()
    again = federation.client(server, "--shard", "3")
    again.wait_line(f"joined .* as {name} with shard 3 of 10$")
    server.wait_event("joined", node=name, shard=3, since=mark)
    assert not [line for line in again.out if "refused" in line]


def test_a_node_with_its_own_images_joins_over_ipv6(federation: Federation, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (40, 28, 28), np.uint8), np.arange(40) % 10
    np.savez(tmp_path / "own.npz", images=images, labels=labels)
    server = federation.serve("--host", "::1", "--rounds", "1", "--clients", "1")

    node = federation.client(f"[::1]:{server.port}", "--data", str(tmp_path / "own.npz"), "--name", "own", "--once")

    assert [server.exit_code(), node.exit_code()] == [0, 0], (server, node)
    assert server.wait_event("started")["address"] == f"[::1]:{server.port}"
    assert server.wait_event("joined", node="own")["shard"] == -1
    assert Control.open().members.nodes()["own"].own_examples == 40  # declared when it enrolled
    assert [line for line in node.out if f"joined [::1]:{server.port} as own with its own data" in line]
    # 40 examples beside the 60,000 of MNIST
    assert server.wait_event("round_done", round=1)["share_of_data"] == 40 / 60_040


@pytest.fixture
def machine() -> Iterator[list[str]]:
    """A command that runs another on a machine of its own: a network namespace with nothing but loopback."""
    name = f"fedge-alone{os.getpid()}"
    try:
        subprocess.run(["ip", "netns", "add", name], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield ["ip", "netns", "exec", name, sys.executable, "-m"]
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_without_any_address_they_meet_on_one_machine(federation: Federation, machine: list[str]) -> None:
    client = federation.keep(Process([*machine, "client", "--shard", "0", "--once"]))
    client.wait_line(
        r"no server found on the local network in 2 s \(many access points block multicast\);"
        r" trying 127\.0\.0\.1:8080 — name another with --server HOST:PORT$"
        r"|the local network cannot be searched \(.*\); trying 127\.0\.0\.1:8080 — name another with"
    )
    client.wait_line(r"127\.0\.0\.1:8080: no server answers there; trying again$")

    settings = as_flags([each for each in TINY if not each.startswith("link.")])
    where = ["--out", str(federation.out), "--rounds", "1", "--clients", "1"]
    server = federation.keep(Server([*machine, "server", "--json", *where, *settings]))

    assert [server.exit_code(), client.exit_code()] == [0, 0], (server, client)
    assert server.wait_event("started")["address"] == "0.0.0.0:8080"
    assert ROOT not in server.run_dir.parents
