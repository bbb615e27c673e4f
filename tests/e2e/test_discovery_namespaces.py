"""Rule: on a real network of two machines (here: network namespaces) a client finds the server by itself."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
import sys
from server.link.announce import announced
with announced("0.0.0.0", 8080, run="first", protocol=1) as warning:
    print(warning or "announced", flush=True)
    sys.stdin.read()
"""
FIND = """
from client.discovery import find_server
place = find_server(None, None, None, 10.0)
print(place.address, place.source, place.how, sep="|")
"""


HOLD_PORT = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
    taken.bind(("", 5353))  # without SO_REUSEADDR: nobody else may listen for mDNS
    print("held", flush=True)
    sys.stdin.read()
"""


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)


def within(namespace: str, program: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", program]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """Two namespaces joined by a cable and by nothing else: 10.77.0.1 and 10.77.0.2."""
    names = (f"fedge-a{os.getpid()}", f"fedge-b{os.getpid()}")
    try:
        ip("netns", "add", names[0])
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    try:
        ip("netns", "add", names[1])
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_a_client_on_another_machine_finds_the_server(machines: tuple[str, str]) -> None:
    server = within(machines[0], SERVE)
    assert server.stdout is not None
    assert server.stdout.readline() == "announced\n"
    found = within(machines[1], FIND).communicate(timeout=60)[0]
    beside = within(machines[0], FIND).communicate(timeout=60)[0]
    server.communicate(timeout=60)
    for output in (found, beside):
        address, source, how = output.strip().split("|")
        assert (address, source) == ("10.77.0.1:8080", "network")
        assert "10-77-0-1-8080 at 10.77.0.1:8080 (run first), found on the local network" in how


def test_a_machine_without_a_network_goes_on(machines: tuple[str, str]) -> None:
    for interface in ("lo", "eth0"):
        ip("-n", machines[0], "link", "set", interface, "down")
        ip("-n", machines[0], "address", "flush", "dev", interface)
    server = within(machines[0], SERVE)
    assert server.stdout is not None
    said = server.stdout.readline()
    client = within(machines[0], FIND.replace("10.0", "0.2")).communicate(timeout=60)[0]
    server.communicate(timeout=60)
    assert said == "announced\n" or said.startswith("cannot announce this server on the local network (")
    assert server.returncode == 0
    assert client.startswith("127.0.0.1:8080|default|")


def test_a_machine_whose_mdns_port_is_taken_goes_on_and_says_why(machines: tuple[str, str]) -> None:
    holder = within(machines[0], HOLD_PORT)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    server = within(machines[0], SERVE)
    said = server.communicate(timeout=60)[0]
    found = within(machines[0], FIND).communicate(timeout=60)[0]
    holder.communicate(timeout=60)
    reason = r"\(\[Errno 98\] Address already in use\)"
    assert re.fullmatch(
        rf"cannot announce this server on the local network {reason}; clients find it with --server HOST:8080\n", said
    )
    assert re.fullmatch(
        rf"127\.0\.0\.1:8080\|default\|the local network cannot be searched {reason};"
        r" trying 127\.0\.0\.1:8080 — name another with --server HOST:PORT\n",
        found,
    )
