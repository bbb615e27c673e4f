"""Rule: a client on the network finds an announced server and says so; announcing never fails the server.

Everything here stays on the loopback interface, under a service type of its own, so neither real
servers nor other tests are heard.
"""

import ipaddress
import os
import socket
import sys
import time
from itertools import count

import pytest
from zeroconf import ServiceInfo, Zeroconf

from client.discovery import Place, find_server
from client.search import search
from common.address import own_addresses
from server.link.announce import announced, announced_addresses

SERVICE = ""
LOOPBACK = ["127.0.0.1"]
_numbers = count()


@pytest.fixture(autouse=True)
def own_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type for each test: an answer that is under way when its server leaves comes a moment later."""
    monkeypatch.setattr(sys.modules[__name__], "SERVICE", f"_fedge{os.getpid():x}-{next(_numbers):x}._tcp.local.")


def host(name: str) -> str:
    """A host's name of the test's own: its addresses belong to no service, so other tests' would be taken for its."""
    return f"{name}{SERVICE.partition('.')[0]}.local."


def find(seconds: float = 10.0, is_known: bool = True) -> Place:
    """An answer ends the search, the seconds are a ceiling; that of a server that is not known, when all had time."""
    return find_server(None, None, None, seconds, interfaces=LOOPBACK, service=SERVICE, prefer=lambda _: is_known)


def test_a_server_on_loopback_is_found_by_name_and_run() -> None:
    with announced("127.0.0.1", 18_080, run="first", protocol=1, service=SERVICE) as warning:
        place = find()
    assert warning == ""
    assert (place.address, place.source) == ("127.0.0.1:18080", "network")
    assert "127-0-0-1-18080 at 127.0.0.1:18080 (run first), found on the local network; name another with" in place.how


def test_of_several_servers_the_first_by_name_is_taken_and_the_others_named() -> None:
    with announced("127.0.0.1", 18_082, run="late", protocol=1, service=SERVICE):
        time.sleep(0.6)  # a server holds back for a second after it spoke (RFC 6762, section 6): these two answer apart
        with announced("127.0.0.1", 18_081, run="early", protocol=1, service=SERVICE):
            place = find(is_known=False)
    assert place.address == "127.0.0.1:18081"
    assert place.how.startswith("2 servers found on the local network, taking ")
    assert "18081 at 127.0.0.1:18081 (run early); also " in place.how
    assert "18082 at 127.0.0.1:18082 (run late) — name another with --server HOST:PORT" in place.how


def test_a_server_tells_where_it_enrols_nodes() -> None:
    with announced("127.0.0.1", 18_092, run="", protocol=1, enrol_port=9, service=SERVICE):
        assert find().enrol_port == 9


def test_what_is_no_server_is_passed_over() -> None:
    useless = ServiceInfo(
        SERVICE, f"a-useless.{SERVICE}", port=18_088, server=host("a"), parsed_addresses=["224.0.0.1", "fe80::1"]
    )
    closed = ServiceInfo(SERVICE, f"b-closed.{SERVICE}", port=0, server=host("b"), parsed_addresses=["127.0.0.1"])
    with Zeroconf(interfaces=LOOPBACK, use_asyncio=False) as hostile:
        for info in (useless, closed):
            hostile.register_service(info, cooperating_responders=True)
        assert find(2.0).source == "default"
        with announced("127.0.0.1", 18_089, run="true", protocol=1, service=SERVICE):
            assert find().address == "127.0.0.1:18089"


def test_a_server_that_left_is_not_found() -> None:
    with announced("127.0.0.1", 18_083, run="gone", protocol=1, service=SERVICE):
        pass
    place = find(0.3)
    assert (place.address, place.source) == ("127.0.0.1:8080", "default")
    assert place.how == (
        "no server found on the local network in 0.3 s (many access points block multicast);"
        " trying 127.0.0.1:8080 — name another with --server HOST:PORT"
    )


def test_a_server_that_starts_again_while_it_is_searched_is_found_anew() -> None:
    def info(port: int) -> ServiceInfo:
        return ServiceInfo(SERVICE, f"a.{SERVICE}", port=port, server=host("a"), parsed_addresses=["127.0.0.1"])

    restarts = [18_094]

    def restart_once(_: str) -> bool:  # asked when the first answer is there; the search goes on after it
        if restarts:
            server.unregister_service(before)
            server.register_service(info(restarts.pop()), cooperating_responders=True)
        return False

    with Zeroconf(interfaces=LOOPBACK, use_asyncio=False) as server:
        server.register_service(before := info(18_093), cooperating_responders=True)
        found = search(10.0, SERVICE, LOOPBACK, prefer=restart_once)
    assert [(each.host, each.port) for each in found] == [("127.0.0.1", 18_094)]


def test_an_ipv6_loopback_server_is_found_with_brackets() -> None:
    with announced("::1", 18_084, run="", protocol=1, service=SERVICE) as warning:
        place = find()
    assert warning == ""
    assert place.address == "[::1]:18084"


def test_a_failure_to_announce_is_a_warning() -> None:
    with announced("name.invalid", 18_085, run="", protocol=1, service=SERVICE) as warning:
        assert warning.startswith("cannot announce this server on the local network (")
        assert warning.endswith("); clients find it with --server HOST:18085")


def test_a_malformed_service_is_a_warning_and_leaves_no_thread_behind() -> None:
    with announced("127.0.0.1", 18_086, run="", protocol=1, service="nonsense") as warning:
        assert warning.startswith("cannot announce this server")


def test_all_addresses_are_announced_without_loopback_and_link_local_ipv6() -> None:
    everywhere = announced_addresses("::")
    assert set(announced_addresses("0.0.0.0")) <= {ip for ip in everywhere if ip.version == 4}
    own = {address.ip for address in own_addresses()}
    for ip in everywhere:
        assert ip in own
        assert not (ip.version == 6 and ip.is_link_local)
        assert not ip.is_loopback or everywhere == [ip]


def test_a_named_host_is_announced_at_its_addresses() -> None:
    assert announced_addresses("10.1.2.3") == [ipaddress.ip_address("10.1.2.3")]
    assert all(ip.is_loopback for ip in announced_addresses("localhost"))
    with pytest.raises(socket.gaierror):
        announced_addresses("name.invalid")
