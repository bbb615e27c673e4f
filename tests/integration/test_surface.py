"""Rule: whoever is not an enrolled node gets nothing from any method but health, soon, and at no cost to those who are.

Each test is one way in that must not exist. What TLS refuses ends as UNAVAILABLE: the handshake fails.
"""

import ctypes
import gc
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2

from client.discovery import Place
from client.entrance import Entrance
from client.link import TURNED_DOWN, Ended, Link
from client.membership import Membership, make_membership
from common import fleet_pb2 as pb
from common.token import SERVER_NAME
from common.wire import ENROL, JOIN, PROTOCOL_VERSION
from server.admission import authority as authority_module
from server.admission.authority import NODE_DAYS, parse_request
from server.admission.passport import Control
from server.fleet import Fleet
from server.link.doors import HEALTH
from tests.link_twins import (
    MODEL_BYTES,
    PATIENCE_SECONDS,
    BareNode,
    Diary,
    channel_to,
    fleet_with,
    hello,
    link_settings,
)

REFUSED_WITHIN_SECONDS = 10.0
MAX_GROWTH_BYTES = 64 * 1024 * 1024
OTHER_METHODS = (
    *("/fedge.v1.Fleet/Leave", "/fedge.v1.Enrolment/Renew", "/grpc.health.v1.Health/Watch", "/x/y"),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Control:
    monkeypatch.setenv("FEDGE_STATE_DIR", str(tmp_path / "laptop"))
    return Control.open()


@pytest.fixture
def fleet(control: Control, diary: Diary) -> Iterator[Fleet]:
    with fleet_with(diary, link_settings(link_silence_seconds=2), control=control) as fleet:
        yield fleet
        # Whatever was tried: the server lives, and a node that may join does.
        assert isinstance(first_word(fleet, hello("honest", shard=2, key=""), enrolled(fleet, "honest")), pb.Welcome)


def enrolled(fleet: Fleet, name: str, own_examples: int = 0) -> Membership:
    told: list[str] = []
    place = Place("127.0.0.1", fleet.port, "the test names it", "flag")
    return Entrance(name, None, 0, told.append, own_examples).enter(place)


def first_word(fleet: Fleet, said: pb.Hello, shown: Membership) -> object:
    with Link("127.0.0.1", fleet.port, said, shown) as link:
        return link.receive(PATIENCE_SECONDS)


def certified(control: Control, member: Membership, begin: datetime) -> Membership:
    """With a certificate that was issued then."""
    name, public = parse_request(member.request())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authority_module, "WRITTEN", begin)
        return member.granted(control.authority.sign_node(name, public, begin))


def without_certificate(member: Membership, _: Control | None = None) -> Membership:
    return replace(member, certificate=b"")


def of_a_foreign_authority(member: Membership, _: Control) -> Membership:
    """The same names and the same form, signed by another key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Fedge authority")])
    end = datetime(9999, 1, 1, tzinfo=UTC)
    root = authority_module._builder("Fedge authority", name, key.public_key(), end).sign(key, hashes.SHA256())
    foreign = authority_module.Authority(Path(), key, root)
    return member.granted(foreign.sign_node(*parse_request(member.request())))


def that_has_ended(member: Membership, control: Control) -> Membership:
    return certified(control, member, datetime.now(UTC) - timedelta(days=NODE_DAYS + 1))


def of_the_server(member: Membership, control: Control) -> Membership:
    key, chain = control.authority.server_credentials()
    return replace(member, key=key, certificate=chain)


@pytest.mark.parametrize("forge", [without_certificate, of_a_foreign_authority, that_has_ended, of_the_server])
def test_no_link_begins_without_a_nodes_valid_certificate(
    fleet: Fleet, control: Control, diary: Diary, forge: Callable[[Membership, Control], Membership]
) -> None:
    shown = forge(enrolled(fleet, "a"), control)
    started = time.monotonic()
    assert first_word(fleet, hello("a", shard=0, key=""), shown) == Ended(TURNED_DOWN)
    assert time.monotonic() - started < REFUSED_WITHIN_SECONDS
    assert diary.lines == []


def test_no_link_begins_with_a_certificate_that_was_revoked(fleet: Fleet, control: Control, diary: Diary) -> None:
    shown = enrolled(fleet, "a")
    control.members.revoke("a")
    revoked = "node a was revoked: its operator knows why"
    assert first_word(fleet, hello("a", shard=0, key=""), shown) == pb.Refusal(reason=revoked)
    fresh = control.members.issue(1, reusable=True)
    assert refusal(fleet, request=shown.request(), secret=fresh.secret) == revoked
    assert diary.lines == []


def test_a_link_in_plaintext_does_not_begin(fleet: Fleet, diary: Diary) -> None:
    with BareNode(fleet.port) as node:
        node.say(pb.FromNode(hello=hello("a", shard=0)))
        assert node.end()[0] == grpc.StatusCode.UNAVAILABLE
    assert diary.lines == []


def test_a_node_cannot_speak_for_another(fleet: Fleet, diary: Diary) -> None:
    enrolled(fleet, "b")
    answer = first_word(fleet, hello("b", shard=0, key=""), enrolled(fleet, "a"))
    assert answer == pb.Refusal(reason="the certificate is that of node a, the hello names 'b'")
    assert diary.lines == []


def test_the_key_that_a_hello_claims_counts_for_nothing(fleet: Fleet, diary: Diary) -> None:
    other = enrolled(fleet, "b")
    with Link("127.0.0.1", fleet.port, hello("b", shard=0, key=""), other) as link:
        assert isinstance(link.receive(PATIENCE_SECONDS), pb.Welcome)
        answer = first_word(fleet, hello("a", shard=0, key="f" * 32), enrolled(fleet, "a"))
        assert isinstance(answer, pb.Refusal)
        assert answer.reason.startswith("shard 0 is held by node b")
    assert [line for line in diary.lines if line.startswith("a")] == []


def test_a_node_cannot_make_itself_heavier_by_saying_that_it_has_more(fleet: Fleet, control: Control) -> None:
    shown = {name: enrolled(fleet, name, own_examples) for name, own_examples in (("a", 50), ("b", 0), ("c", 200_000))}

    def joins_with(own_examples: int, name: str = "a") -> object:
        return first_word(fleet, hello(name, own_examples=own_examples, key=""), shown[name])

    assert isinstance(joins_with(50), pb.Welcome)
    for name, said in (("a", "50"), ("b", "none")):
        more = joins_with(51, name)
        assert isinstance(more, pb.Refusal)
        assert more.reason.startswith(f"51 examples of its own, and node {name} said {said} when it enrolled: ")
        assert more.retry
        control.members.recount(name)
        refused = joins_with(200_000, name)  # over federation.max_own_examples, so it binds nobody
        assert isinstance(refused, pb.Refusal)
        assert isinstance(joins_with(51, name), pb.Welcome)
    over = joins_with(200_000, "c")
    assert isinstance(over, pb.Refusal)
    assert over.reason.endswith("this server takes 1 to 100000 (federation.max_own_examples)")


def test_a_certificate_that_nobody_enrolled_is_refused(fleet: Fleet, control: Control) -> None:
    member = make_membership("ghost", ssl.PEM_cert_to_DER_cert(control.authority.certificate_pem.decode()))
    shown = certified(control, member, datetime.now(UTC))
    answer = first_word(fleet, hello("ghost", shard=0, key=""), shown)
    assert isinstance(answer, pb.Refusal)
    assert answer.reason.startswith("node ghost is not enrolled with this server")


def test_a_nodes_certificate_makes_no_server(fleet: Fleet, control: Control, diary: Diary) -> None:
    shown = enrolled(fleet, "a")
    real = control.authority.server_credentials
    control.authority.server_credentials = lambda: (shown.key, shown.certificate + shown.authority)  # type: ignore[method-assign]
    with fleet_with(diary, link_settings(), control=control) as impostor:
        control.authority.server_credentials = real  # type: ignore[method-assign]
        assert first_word(impostor, hello("a", shard=0, key=""), shown) == Ended(TURNED_DOWN)
    assert diary.lines == []


@pytest.mark.parametrize("first", [b"\xff\xff", b"", b"\x00" * 20_000], ids=["garbage", "nothing", "20 KB"])
def test_an_enrolled_node_must_say_hello_too(fleet: Fleet, first: bytes) -> None:
    with BareNode(fleet.port, enrolled(fleet, "a")) as node:
        node.say(first)
        assert node.end() == (grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a hello")


def test_an_enrolled_node_that_says_nothing_is_ended(fleet: Fleet) -> None:
    started = time.monotonic()
    with BareNode(fleet.port, enrolled(fleet, "a")) as node:
        assert node.end() == (grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a hello")
    assert time.monotonic() - started < REFUSED_WITHIN_SECONDS


def test_there_is_no_other_method_on_either_port(fleet: Fleet) -> None:
    inside, outside = enrolled(fleet, "a"), without_certificate(enrolled(fleet, "a"))
    for port, shown, methods in (
        (fleet.port, inside, (*OTHER_METHODS, ENROL, HEALTH)),
        (fleet.enrol_port, outside, (*OTHER_METHODS, JOIN)),
    ):
        for method in methods:
            with BareNode(port, shown, method) as stranger:
                stranger.say(pb.FromNode(hello=hello("a", shard=0)))
                assert stranger.end()[0] == grpc.StatusCode.UNIMPLEMENTED, (port, method)


def ask(fleet: Fleet, method: str, raw: bytes, seconds: float = PATIENCE_SECONDS) -> bytes | grpc.StatusCode:
    """One call without a certificate at the port for strangers."""
    shown = without_certificate(enrolled(fleet, "a"))
    with channel_to(fleet.enrol_port, shown) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        outcome = call.future(raw, timeout=seconds)
        return outcome.result() if outcome.exception() is None else outcome.code()


def test_health_is_told_to_all_and_takes_nothing_else(fleet: Fleet) -> None:
    answer = ask(fleet, HEALTH, b"")
    assert isinstance(answer, bytes)
    assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING
    for raw in (b"\xff\xff", b"\x00" * 1000, health_pb2.HealthCheckRequest(service="x").SerializeToString()):
        assert ask(fleet, HEALTH, raw) == grpc.StatusCode.NOT_FOUND
    assert ask(fleet, HEALTH, bytes(20_000)) == grpc.StatusCode.RESOURCE_EXHAUSTED


def refusal(fleet: Fleet, **asked: Any) -> str:
    known: dict[str, Any] = {"protocol_version": PROTOCOL_VERSION, "secret": "0" * 32}
    answer = ask(fleet, ENROL, pb.EnrolRequest(**known | asked).SerializeToString())
    assert isinstance(answer, bytes), answer
    reply = pb.EnrolReply.FromString(answer)
    assert reply.certificate == b""
    return reply.refusal


def test_enrolment_takes_a_request_with_the_secret_of_a_token_and_nothing_else(fleet: Fleet, control: Control) -> None:
    one = control.members.issue(1, reusable=False)
    ca = ssl.PEM_cert_to_DER_cert(control.authority.certificate_pem.decode())
    enrolled(fleet, "b")
    mine = make_membership("c", ca).request()
    assert "does not know this join token" in refusal(fleet, request=mine)
    assert "does not know this join token" in refusal(fleet, request=mine, secret="x" * 10_000)
    assert "cannot be read" in refusal(fleet, request=b"garbage", secret=one.secret)
    assert "cannot be read" in refusal(fleet, request=bytes(10_000), secret=one.secret)
    assert "protocol version" in refusal(fleet, request=mine, secret=one.secret, protocol_version=1)
    others_name = make_membership("b", ca).request()
    assert "the name b belongs to another node" in refusal(fleet, request=others_name, secret=one.secret)
    assert "a node's name must be" in refusal(fleet, request=make_membership("../b", ca).request(), secret=one.secret)
    granted = ask(
        fleet, ENROL,
        pb.EnrolRequest(protocol_version=PROTOCOL_VERSION, secret=one.secret, request=mine).SerializeToString(),
    )  # fmt: skip
    assert isinstance(granted, bytes)
    assert pb.EnrolReply.FromString(granted).certificate
    replayed = make_membership("d", ca).request()
    assert "was used by another node" in refusal(fleet, request=replayed, secret=one.secret)
    assert ask(fleet, ENROL, b"\xff\xff") == pb.EnrolReply(refusal="that is no enrolment").SerializeToString()
    assert ask(fleet, ENROL, bytes(20_000)) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_renewal_with_another_key_ends_the_link(fleet: Fleet, control: Control) -> None:
    shown = enrolled(fleet, "a")
    ca = ssl.PEM_cert_to_DER_cert(control.authority.certificate_pem.decode())
    for request in (b"garbage", make_membership("a", ca).request()):
        with BareNode(fleet.port, shown) as node:
            node.say(pb.FromNode(hello=hello("a", shard=0, key="")))
            node.hear("welcome")
            node.say(pb.FromNode(renewal=pb.Renewal(request=request)))
            assert node.end()[0] == grpc.StatusCode.OK


def test_who_connects_and_dawdles_is_cut_off(control: Control, diary: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.link.doors.HANDSHAKE_SECONDS", 1.0)
    monkeypatch.setattr("server.link.doors.STRANGER_SECONDS", 1.0)
    monkeypatch.setattr("server.link.doors.STRANGER_GRACE_SECONDS", 0.5)
    with fleet_with(diary, link_settings(), control=control) as fleet:
        dawdlers = [socket.create_connection(("127.0.0.1", port)) for port in (fleet.port, fleet.enrol_port) * 40]
        for connection in dawdlers:
            connection.sendall(b"\x16\x03\x01\x02")  # the beginning of a handshake
        secured = _connected(fleet.enrol_port)
        secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")  # and no call
        assert isinstance(first_word(fleet, hello("a", shard=0, key=""), enrolled(fleet, "a")), pb.Welcome)
        for connection in (*dawdlers, secured):
            with connection:
                assert _is_ended(connection)


@pytest.mark.parametrize("method", [ENROL, HEALTH])
def test_a_call_that_is_begun_and_never_made_is_ended(
    control: Control, diary: Diary, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr("server.link.doors.STRANGER_SECONDS", 1.0)
    monkeypatch.setattr("server.link.doors.STRANGER_GRACE_SECONDS", 0.5)
    with fleet_with(diary, link_settings(), control=control) as fleet:
        shown, started = without_certificate(enrolled(fleet, "a")), time.monotonic()
        with BareNode(fleet.enrol_port, shown, method) as stranger:
            assert stranger.end()[0] != grpc.StatusCode.OK
        assert time.monotonic() - started < REFUSED_WITHIN_SECONDS


def _connected(port: int) -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname=SERVER_NAME)


def _is_ended(connection: socket.socket) -> bool:
    """Whether the other side closes before long; what it says before that does not matter."""
    connection.settimeout(REFUSED_WITHIN_SECONDS)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def in_use() -> int:
    """Resident bytes of this process, without what its allocator keeps for later."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)
    return int(psutil.Process().memory_info().rss)


def test_messages_of_any_size_take_bounded_memory(fleet: Fleet) -> None:
    shown = enrolled(fleet, "a")
    huge = bytes(2 * MODEL_BYTES + 64 * 1024 + 17 * 1024 * 1024)
    held: list[int] = []
    for _ in range(20):
        with BareNode(fleet.port, shown) as node:
            node.say(pb.FromNode(hello=hello("a", shard=0, key="")))
            node.hear("welcome")
            node.say(huge)
            assert node.end()[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ask(fleet, ENROL, huge) == grpc.StatusCode.RESOURCE_EXHAUSTED
        held.append(in_use())
    # The first fill the buffers that this process sends from, and up to five messages may be on their way; one message
    # kept for each attempt would come to twice the limit.
    assert min(held[16:]) - max(held[4:8]) < MAX_GROWTH_BYTES
