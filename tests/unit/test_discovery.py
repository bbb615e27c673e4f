"""Rule: who names a server is obeyed (flag > environment > settings); what a network claims is checked, bounded."""

import ipaddress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.discovery import find_server
from client.search import Found, choose, validated
from common.address import OwnAddress, join_address, parse_address
from common.errors import UsageError

OWN = (
    OwnAddress("lo", ipaddress.ip_address("127.0.0.1"), ipaddress.ip_network("127.0.0.0/8")),
    OwnAddress("eth0", ipaddress.ip_address("192.168.1.7"), ipaddress.ip_network("192.168.1.0/24")),
    OwnAddress("docker0", ipaddress.ip_address("172.17.0.1"), ipaddress.ip_network("172.17.0.0/16")),
)


def host_of(*addresses: str) -> str | None:
    found = validated("laptop", addresses, 8080, None, OWN)
    return found.host if found else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("laptop", ("laptop", 8080)),
        ("laptop.local:9000", ("laptop.local", 9000)),
        (" 10.0.0.5:1 ", ("10.0.0.5", 1)),
        ("10.0.0.5:65535", ("10.0.0.5", 65535)),
        ("::1", ("::1", 8080)),
        ("[::1]", ("::1", 8080)),
        ("[::1]:9000", ("::1", 9000)),
        ("[fe80::1%eth0]:9000", ("fe80::1%eth0", 9000)),
        ("pi_3.example.org.", ("pi_3.example.org.", 8080)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text, "--server") == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", "8080", "10.0.0.300", "http://laptop:8080", "-x", "a..b", "[10.0.0.5]:1", "[::1", "[::1%]", "a b", "é:1",
     "a" * 64, ".".join(["a" * 60] * 5), "1:2:3", "[::1]8080", "x@y"],
)  # fmt: skip
def test_a_host_that_is_none_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--server must be HOST:PORT \(IPv6: \[ADDRESS\]:PORT\), got '") as failure:
        parse_address(text, "--server")
    assert len(str(failure.value)) < 140


@pytest.mark.parametrize("text", ["laptop:", "laptop:0", "laptop:65536", "[::1]:", "laptop:80x", "laptop:-1", "h:٣"])
def test_a_port_out_of_range_is_refused_with_the_range(text: str) -> None:
    with pytest.raises(UsageError, match=r"^FEDGE_SERVER must end in a port from 1 to 65535, got '"):
        parse_address(text, "FEDGE_SERVER")


@settings(deadline=None)  # the machine may be busy
@given(
    host=st.one_of(
        st.ip_addresses().map(str),
        st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z][a-z0-9]{0,5}){0,3}", fullmatch=True),
    ),
    port=st.integers(1, 65_535),
)
def test_a_joined_address_parses_to_its_parts(host: str, port: int) -> None:
    assert parse_address(join_address(host, port), "--server") == (host, port)


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet=st.sampled_from("[]:%.-_aZ0189 é\n\0/"), max_size=40) | st.text(max_size=300))
@example("[" * 1000)
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    try:
        host, port = parse_address(text, "--server")
    except UsageError as error:
        sentence = str(error)
    else:
        sentence = ""
        assert 1 <= port <= 65_535
        assert host
        assert not set(host) & set("[] \n\0/")
    assert "\n" not in sentence
    assert len(sentence) < 800


def test_the_flag_wins_over_environment_and_settings() -> None:
    place = find_server("a:1", "b:2", "c:3")
    assert (place.address, place.source, place.how) == ("a:1", "flag", "server a:1, named with --server")


def test_the_environment_wins_over_the_settings() -> None:
    place = find_server(None, "b:2", "c:3")
    assert (place.host, place.port, place.source) == ("b", 2, "environment")
    assert place.how == "server b:2, named by FEDGE_SERVER; name another with --server HOST:PORT"


@pytest.mark.parametrize("unset", [None, ""])
def test_the_settings_are_asked_last(unset: str | None) -> None:
    place = find_server(None, unset, "[::1]:3")
    assert (place.host, place.port, place.address, place.source) == ("::1", 3, "[::1]:3", "settings")
    assert "named by client.server in the settings; name another with --server" in place.how


def test_an_empty_flag_is_a_slip() -> None:
    with pytest.raises(UsageError, match="--server must be HOST:PORT"):
        find_server("", "b:2", None)


def test_a_slip_in_the_settings_is_named_as_such() -> None:
    with pytest.raises(UsageError, match=r"client\.server must end in a port from 1 to 65535, got 'c:x'"):
        find_server(None, None, "c:x")


def test_a_server_on_our_network_is_tried_where_we_share_a_network() -> None:
    assert host_of("10.9.8.7", "192.168.1.20") == "192.168.1.20"


def test_a_server_elsewhere_is_not_tried_at_an_address_that_is_ours_too() -> None:
    assert host_of("172.17.0.1", "127.0.0.1", "10.9.8.7") == "10.9.8.7"


def test_ipv4_comes_before_ipv6() -> None:
    assert host_of("fd00::9", "10.9.8.7") == "10.9.8.7"
    assert host_of("fd00::9") == "fd00::9"


def test_a_server_with_only_our_addresses_is_here() -> None:
    found = validated("laptop", ["192.168.1.7", "127.0.0.1"], 8080, b"first", OWN)
    assert found == Found("laptop", "127.0.0.1", 8080, "first", here=True)


@pytest.mark.parametrize(
    "address", ["fe80::1", "fe80::1%eth0", "224.0.0.251", "0.0.0.0", "::", "255.255.255.255", "x", ""]
)
def test_an_address_nobody_can_serve_at_is_no_server(address: str) -> None:
    assert host_of(address) is None


def test_only_the_first_addresses_count() -> None:
    assert host_of(*["0.0.0.0"] * 16, "10.9.8.7") is None


@pytest.mark.parametrize("port", [None, 0, -1, 65_536])
def test_a_port_nobody_can_serve_at_is_no_server(port: int | None) -> None:
    assert validated("laptop", ["10.9.8.7"], port, None, OWN) is None


def test_texts_of_the_network_reach_no_terminal_raw() -> None:
    found = validated("\x1b[2Jevil\n" + "x" * 99, ["10.9.8.7"], 8080, b"\x1b]0;\xff" + b"y" * 500, OWN)
    assert found is not None
    assert found.name == "-2Jevil-" + "x" * 55
    assert found.run == "-0-" + "y" * 58


@settings(deadline=None)  # the machine may be busy
@given(
    name=st.text(max_size=200),
    addresses=st.lists(st.text(max_size=50) | st.ip_addresses().map(str), max_size=30),
    port=st.none() | st.integers(),
    run=st.none() | st.binary(max_size=300),
)
def test_any_announcement_is_a_place_or_nothing(
    name: str, addresses: list[str], port: int | None, run: bytes | None
) -> None:
    found = validated(name, addresses, port, run, OWN)
    if found is not None:
        assert 1 <= found.port <= 65_535
        assert ipaddress.ip_address(found.host)
        assert len(str(found)) < 300
        assert str(found).isprintable()


def test_a_server_here_is_taken_first_then_by_name_and_one_an_address() -> None:
    b = Found("b", "10.0.0.2", 8080, "", here=False)
    a = Found("a", "10.0.0.1", 8080, "", here=False)
    here = Found("z", "192.168.1.7", 8080, "", here=True)
    again = Found("c", "10.0.0.1", 8080, "", here=False)
    assert choose([again, b, here, a]) == [here, a, b]
    assert choose([]) == []


def test_a_server_whose_authority_the_node_knows_comes_first() -> None:
    mine = Found("z", "10.0.0.9", 8080, "", here=False, authority="ab" * 8)
    here = Found("a", "192.168.1.7", 8080, "", here=True, authority="cd" * 8)
    assert choose([here, mine], lambda authority: authority == "ab" * 8) == [mine, here]
    assert choose([here, mine]) == [here, mine]


@pytest.mark.parametrize(("text", "port"), [(b"8081", 8081), (b"", 0), (b"-1", 0), (b"99999", 0), (b"1e3", 0)])
def test_an_announced_enrolment_port_is_a_port_or_nothing(text: bytes, port: int) -> None:
    found = validated("laptop", ["10.9.8.7"], 8080, None, OWN, {b"enrol": text, b"ca": b"\xffab" * 20})
    assert found is not None
    assert found.enrol_port == port
    assert len(found.authority) == 16
