"""Rule: who says a proper hello joins; all others are told why not, and no node disturbs another."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import grpc
import pytest
import torch
from flwr.app import Message
from grpc_health.v1 import health_pb2

from client.link import Ended, Link
from common import fleet_pb2 as pb
from common.errors import UsageError
from common.wire import JOIN, PROTOCOL_VERSION, own_config
from server.fleet import Fleet
from server.grids import Node, Tasks
from server.link.held import MAX_STREAMS, TOO_MANY
from server.link.roster import node_id
from tests.link_twins import (
    MODEL_BYTES,
    PATIENCE_SECONDS,
    BareNode,
    Diary,
    fleet_with,
    hello,
    link_settings,
    until,
)
from tests.played_nodes import A, bias, joined, update
from tests.scripted_grid import task_message

WELCOMED: Any = {
    "num_shards": 3,
    "beat_seconds": 0.1,
    "silence_seconds": 10.0,
    "max_message_bytes": 2 * MODEL_BYTES + 64 * 1024,
}
WELCOME = pb.Welcome(**WELCOMED)
NO_HELLO = (grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a hello")


def first_word(fleet: Fleet, said: pb.Hello) -> object:
    with Link("127.0.0.1", fleet.port, said) as link:
        return link.receive(PATIENCE_SECONDS)


def test_a_node_joins_and_leaves_with_a_word(fleet: Fleet, diary: Diary) -> None:
    with Link("127.0.0.1", fleet.port, hello("a", shard=2)) as link:
        welcome = link.receive(PATIENCE_SECONDS)
        assert welcome == pb.Welcome(shard=2, **WELCOMED)
        diary.wait("a joined with 2")
        assert fleet.nodes() == [Node(node_id("a"), "a", 2)]
        link.leave("it was stopped", PATIENCE_SECONDS)
    diary.wait("a left: it was stopped")
    assert fleet.nodes() == []
    assert diary.lines == ["a joined with 2", "a left: it was stopped"]


def test_a_node_that_vanishes_is_gone(fleet: Fleet, diary: Diary) -> None:
    with BareNode(fleet.port) as node:
        node.say(pb.FromNode(hello=hello("a", shard=0)))
        assert node.hear("welcome").shard == 0
    diary.wait("a left: it")


@contextmanager
def joining_unread(port: int) -> Iterator[tuple[Callable[[], str], Callable[[], None]]]:
    """How to join as node a time after time and read no more than the first word, and how to leave all those links."""
    narrow = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 8 * 1024))  # gRPC reads on by itself
    with grpc.insecure_channel(f"127.0.0.1:{port}", narrow) as channel, ExitStack() as calls:
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(JOIN)

        def join() -> str:
            said: queue.Queue[bytes | None] = queue.Queue()
            said.put(pb.FromNode(hello=hello("a", shard=0)).SerializeToString())
            call = method(iter(said.get, None))
            calls.callback(said.put, None)
            calls.callback(call.cancel)
            try:
                return str(pb.ToNode.FromString(next(call)).WhichOneof("kind"))
            except grpc.RpcError:
                return str(call.details())

        yield join, calls.close


def test_a_node_that_leaves_its_links_unread_may_have_only_so_many(
    fleet: Fleet, aside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Message] = []

    def note(message: Message) -> dict[str, pb.Value]:
        sent.append(message)
        return own_config(message)

    monkeypatch.setattr("server.link.assignment.own_config", note)  # called when a task is about to be written
    large = {"weight": torch.zeros(2**18)}
    with joining_unread(fleet.port) as (join, leave):
        assert join() == "welcome"
        answers = aside.submit(list, fleet.exchange(Tasks("run/1", [task_message(A, large)], PATIENCE_SECONDS)))
        for number in range(1, MAX_STREAMS):
            until(partial(lambda number: len(sent) == number, number))
            assert join() == "welcome"
        assert [join() for _ in range(3)] == 3 * [TOO_MANY]
        leave()
        until(lambda: join() == "welcome")
    with joined(fleet, "a", 0) as back:
        assert back.hear("task").task == "run/1/a"
        back.say(update("run/1/a", 2.0))
        (answer,) = answers.result(PATIENCE_SECONDS)
        assert bias(answer) == 2.0


def test_auto_is_given_a_free_shard_and_own_data_none(fleet: Fleet) -> None:
    with BareNode(fleet.port) as first, BareNode(fleet.port) as second, BareNode(fleet.port) as third:
        data: list[dict[str, int]] = [{"shard": 0}, {"any_shard": True}, {"own_examples": 70}]
        for name, node, holds in zip("abc", (first, second, third), data, strict=True):
            node.say(pb.FromNode(hello=hello(name, **holds)))
            node.hear("welcome")
        own, *others = fleet.nodes()
        assert (own.name, own.shard, own.own_examples) == ("c", -1, 70)
        assert [(node.name, node.shard) for node in others] == [("a", 0), ("b", 1)]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            hello("b", shard=1, protocol_version=7, software_version="0.0.7"),
            f"this server speaks protocol version {PROTOCOL_VERSION} (Fedge 0.1.0), the node version 7 (Fedge 0.0.7):"
            " install the same Fedge on both",
        ),
        (hello("b", shard=0), "shard 0 is held by node a: take another with --shard auto or one of: 1, 2"),
        (hello("b", shard=12), "shard 12 does not exist: the training set is divided into 3 shards, 0 to 2"),
        (hello("a", shard=1, key="f" * 32), "the name a is in use by another node: choose one with --name"),
        (
            hello("b", own_examples=10**9),
            "1000000000 examples of its own, this server takes 1 to 100000 (federation.max_own_examples)",
        ),
    ],
    ids=["version", "taken shard", "no such shard", "taken name", "too much data"],
)
def test_a_refused_node_is_told_why_and_disturbs_nobody(
    fleet: Fleet, diary: Diary, said: pb.Hello, reason: str
) -> None:
    with BareNode(fleet.port) as holder:
        holder.say(pb.FromNode(hello=hello("a", shard=0)))
        holder.hear("welcome")
        assert first_word(fleet, said) == pb.Refusal(reason=reason, retry=False)
        assert [node.name for node in fleet.nodes()] == ["a"]
    diary.wait("a left: it")
    assert [line for line in diary.lines if "left" not in line] == ["a joined with 0"]


def test_where_all_shards_are_held_auto_may_try_again(diary: Diary) -> None:
    with fleet_with(diary, link_settings(data_num_shards=1)) as fleet, BareNode(fleet.port) as holder:
        holder.say(pb.FromNode(hello=hello("a", shard=0)))
        holder.hear("welcome")
        expected = pb.Refusal(reason="every shard is held by another node", retry=True)
        assert first_word(fleet, hello("b", any_shard=True)) == expected


def test_a_refused_stream_is_closed(fleet: Fleet) -> None:
    with Link("127.0.0.1", fleet.port, hello("b", shard=9)) as link:
        assert isinstance(link.receive(PATIENCE_SECONDS), pb.Refusal)
        assert link.receive(PATIENCE_SECONDS) == Ended("the server closed the link")


@pytest.mark.parametrize(
    "first",
    [
        b"\xff\xff garbage",
        b"",
        pb.FromNode(progress=pb.Progress()).SerializeToString(),
        pb.FromNode(update=pb.Update(task="run/1/a")).SerializeToString(),
        pb.FromNode(hello=hello("a" * 20_000, shard=0)).SerializeToString(),
    ],
    ids=["garbage", "nothing", "progress", "update", "20 KB hello"],
)
def test_a_stream_that_does_not_begin_with_a_hello_is_ended(fleet: Fleet, diary: Diary, first: bytes) -> None:
    with BareNode(fleet.port) as node:
        node.say(first)
        assert node.end() == NO_HELLO
    assert (fleet.nodes(), diary.lines) == ([], [])


def test_a_stream_larger_than_any_message_is_ended(fleet: Fleet, diary: Diary) -> None:
    with BareNode(fleet.port) as node:
        node.say(bytes(200_000))
        code, _ = node.end()
        assert code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}
    assert first_word(fleet, hello("b", shard=0)) == WELCOME
    diary.wait("b joined with 0")


def test_who_never_says_hello_is_ended(diary: Diary) -> None:
    with fleet_with(diary, link_settings(link_silence_seconds=0.3)) as fleet, BareNode(fleet.port) as node:
        assert node.end() == NO_HELLO


def test_a_silent_node_is_ended_and_one_that_beats_is_not(diary: Diary) -> None:
    settings = link_settings(link_silence_seconds=2.0)
    with (
        fleet_with(diary, settings) as fleet,
        Link("127.0.0.1", fleet.port, hello("alive", shard=0)),
        BareNode(fleet.port) as silent,
    ):
        diary.wait("alive joined with 0")
        silent.say(pb.FromNode(hello=hello("silent", shard=1)))
        silent.hear("welcome")
        diary.wait("silent left: silent for 2 s")
        assert [node.name for node in fleet.nodes()] == ["alive"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.FromNode(hello=hello("a", shard=0)).SerializeToString(), "it sent an unexpected hello"),
        (b"", "it sent an unexpected message"),
        (b"\xff\xff garbage", "it sent bytes that are no message"),
        (pb.FromNode(progress=pb.Progress(task="x" * 65_540)).SerializeToString(), "it sent an unexpected progress"),
    ],
    ids=["second hello", "nothing", "garbage", "64 KiB of progress"],
)
def test_a_node_that_talks_nonsense_is_ended_alone(fleet: Fleet, diary: Diary, message: bytes, reason: str) -> None:
    with BareNode(fleet.port) as other, BareNode(fleet.port) as node:
        for name, stream, shard in (("b", other, 1), ("a", node, 0)):
            stream.say(pb.FromNode(hello=hello(name, shard=shard)))
            stream.hear("welcome")
        node.say(message)
        diary.wait(f"a left: {reason}")
        assert [each.name for each in fleet.nodes()] == ["b"]


def test_the_same_node_replaces_its_former_self(fleet: Fleet, diary: Diary) -> None:
    with BareNode(fleet.port) as former, BareNode(fleet.port) as now:
        former.say(pb.FromNode(hello=hello("a", shard=0)))
        former.hear("welcome")
        now.say(pb.FromNode(hello=hello("a", shard=0)))
        now.hear("welcome")
        former.end()
        assert [node.name for node in fleet.nodes()] == ["a"]
        diary.wait("a joined with 0", times=2)
        assert len(diary.lines) == 2


def test_a_wait_ends_when_a_node_joins(fleet: Fleet) -> None:
    fleet.wait_for_change(0.0)
    with BareNode(fleet.port) as node:
        node.say(pb.FromNode(hello=hello("a", shard=0)))
        node.hear("welcome")
        fleet.wait_for_change(10 * PATIENCE_SECONDS)
        assert [each.name for each in fleet.nodes()] == ["a"]


@pytest.mark.parametrize("service", ["", "fedge.v1.Fleet"])
def test_the_health_service_answers(fleet: Fleet, service: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{fleet.port}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_second_server_on_the_port_is_refused(fleet: Fleet) -> None:
    second = fleet_with(Diary(), link_settings(link_port=fleet.port))
    with pytest.raises(UsageError) as error:
        second.__enter__()
    assert str(error.value) == (
        f"cannot listen on 127.0.0.1:{fleet.port}: the port is taken or the address is not this machine's;"
        " choose another with --port or --host"
    )


def test_when_the_server_ends_every_node_is_told(diary: Diary) -> None:
    with fleet_with(diary, link_settings()) as fleet:
        link = Link("127.0.0.1", fleet.port, hello("a", shard=0)).__enter__()
        link.receive(PATIENCE_SECONDS)
        fleet.say_farewell("the run is done", run_done=True)
    assert link.receive(PATIENCE_SECONDS) == pb.Farewell(reason="the run is done", run_done=True)
    assert isinstance(link.receive(PATIENCE_SECONDS), Ended)
    link.__exit__()


def test_without_a_word_the_server_just_stopped(diary: Diary) -> None:
    with fleet_with(diary, link_settings()) as fleet:
        link = Link("127.0.0.1", fleet.port, hello("a", shard=0)).__enter__()
        link.receive(PATIENCE_SECONDS)
    assert link.receive(PATIENCE_SECONDS) == pb.Farewell(reason="the server stopped")
    link.__exit__()
    with Link("127.0.0.1", fleet.port, hello("a", shard=0)) as late:
        assert late.receive(PATIENCE_SECONDS) == Ended("no server answers there")


def test_all_links_of_a_process_share_one_thread(fleet: Fleet) -> None:
    with Link("127.0.0.1", fleet.port, hello("a", shard=0)) as first:
        assert isinstance(first.receive(PATIENCE_SECONDS), pb.Welcome)
        before = [thread.name for thread in threading.enumerate()]
        with Link("127.0.0.1", fleet.port, hello("b", shard=1)) as second:
            assert isinstance(second.receive(PATIENCE_SECONDS), pb.Welcome)
            after = [thread.name for thread in threading.enumerate()]
    assert before.count("links") == after.count("links") == 1
    assert {name for name in after if not name.startswith(("asyncio_", "Dummy"))} <= set(before)  # the server's, gRPC's
