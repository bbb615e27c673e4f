"""Rule: a stranger in the server's place gets nothing, and an update that a node has kept is delivered late, once.

Real processes over loopback, with mutual TLS.
"""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2

from client.membership import Membership
from client.spool import Spool
from common import fleet_pb2 as pb
from common.arrays import to_state
from common.models import weights_sha256
from common.wire import JOIN, from_update
from tests.e2e.runs import json_lines
from tests.faults.chaos_proxy import ChaosProxy
from tests.faults.crash_trials import KILLED, Stage, judge
from tests.faults.federation import NODES, Federation, kill
from tests.faults.injector import Fault
from tests.link_twins import channel_to, until
from tests.scripted_grid import task_message

pytestmark = pytest.mark.xdist_group("faults")
STRANGER = "what answers there is no server that node .* is enrolled with"
HEALTH, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


@contextmanager
def ending(*federations: Federation) -> Iterator[None]:
    """None of their processes outlives the test."""
    try:
        yield
    finally:
        for federation in federations:
            federation.end()


def test_a_foreign_server_in_the_place_of_the_real_one_gets_nothing(stage: Stage) -> None:
    """The server dies in round 2, of which its nodes keep their updates until it is back."""
    federation = stage.federation("foreign")
    foreign = Federation(stage.nursery, stage.folder / "foreign-server", stage.cache, port=federation.port)
    with ending(federation, foreign):
        federation.start("server", Fault("server join receive update after", 3))
        for node in NODES:
            federation.start(node)
        assert federation.wait("server") == KILLED
        foreign.start("server")
        for node in NODES:
            until(lambda: bool(re.search(STRANGER, federation.said(node))))  # noqa: B023 - called at once
        kill(foreign.pids["server"])
        foreign.wait("server")
        assert "joined" not in {event["event"] for event in foreign.events()}
        assert 'nodes": {}' in (foreign.state / "authority" / "members.json").read_text()

        federation.start("server")
        assert [federation.wait(who) for who in ("server", *NODES)] == [0, 0, 0]
        for node in NODES:
            said = federation.said(node)
            assert len(re.findall(STRANGER, said)) == 1
            assert "asks again for the last update: sending the same bytes" in said
        outcome = judge("foreign", federation, stage.reference, 1, [])
        assert not outcome.problems, outcome


def test_an_update_that_a_killed_node_had_kept_is_delivered_late_and_counts_once(stage: Stage) -> None:
    """Node b loses its link in round 1, finishes, is killed, and is back in round 2, in which a is held."""
    settings = ("federation.rejoin_seconds=0.8", "federation.min_nodes=1", "link.silence_seconds=60")
    federation = Federation(stage.nursery, stage.folder / "late", stage.cache, 2, settings=settings)
    with ending(federation), ChaosProxy(federation.port, ["b"]) as proxy:
        federation.ports["b"] = proxy.ports["b"]
        federation.start("server")
        for node, federation.least_fit_seconds in (("a", 0.3), ("b", 1.0)):
            federation.start(node)
        federation.wait_for_event("progress", node="b")
        proxy.set("b", is_shut=True)
        proxy.cut("b")
        federation.wait_for_event("delivered", node="a")
        os.kill(federation.pids["a"], signal.SIGSTOP)
        until((federation.state / "updates" / "b.update").exists)
        kill(federation.pids["b"])
        federation.wait("b")
        kept = Spool(federation.state, "b").last
        assert kept, "the file says so"
        federation.wait_for_event("round_started", round=2)
        assert_health_alone_is_answered(federation)

        proxy.set("b")
        federation.start("b")
        until(lambda: "round 1: the server still takes the update: sending it" in federation.said("b"))
        os.kill(federation.pids["a"], signal.SIGCONT)
        assert [federation.wait(who) for who in ("server", *NODES)] == [0, 0, 0]
        assert "round 1: accepted" in federation.said("b")
    found = [
        (line["node"], line["round"], line["judged"], line["verdict"])
        for line in json_lines(federation.run / "ledger.jsonl")
    ]
    assert found == [("a", 1, 1, "accepted"), ("a", 2, 2, "accepted"), ("b", 1, 2, "accepted")]
    assert json_lines(federation.run / "ledger.jsonl")[2]["sha256"] == sha256_of(kept.update)


def sha256_of(update: pb.Update) -> str:
    """Of its weights, as the ledger has it."""
    content = from_update(update, task_message()).content
    return weights_sha256(to_state(content.array_records["arrays"]))


def assert_health_alone_is_answered(federation: Federation) -> None:
    """To whoever trusts the server's CA, on the enrolment port; enrolment itself wants a secret."""
    content = (federation.state / "authority" / "ca.pem").read_bytes()
    authority = x509.load_pem_x509_certificate(content).public_bytes(Encoding.PEM)
    with channel_to(federation.port + 1, Membership("stranger", authority, key=b"")) as channel:
        for service in ("", "fedge.v1.Fleet"):
            asked = health_pb2.HealthCheckRequest(service=service).SerializeToString()
            reply = health_pb2.HealthCheckResponse.FromString(asking(channel, HEALTH)(asked, timeout=30))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        assert refusal(channel, HEALTH, b"\n\x01x") == grpc.StatusCode.NOT_FOUND
        for method in (JOIN, WATCH, REFLECTION):
            assert refusal(channel, method, b"") == grpc.StatusCode.UNIMPLEMENTED
    with channel_to(federation.port + 1, None) as plaintext:
        assert refusal(plaintext, HEALTH, b"") == grpc.StatusCode.UNAVAILABLE


def asking(channel: grpc.Channel, method: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return call


def refusal(channel: grpc.Channel, method: str, asked: bytes) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as error:
        asking(channel, method)(asked, timeout=30)
    assert isinstance(error.value, grpc.Call)
    return error.value.code()
