"""Both ends of the link for tests: a diary of what a server hears, and a node made of bare gRPC that may misbehave."""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from client.discovery import Place
from client.entrance import Entrance
from client.membership import Membership
from client.node import Node
from client.spool import Spool
from common import fleet_pb2 as pb
from common.layers import load
from common.settings import Settings
from common.token import SERVER_NAME
from common.wire import JOIN, PROTOCOL_VERSION
from server.admission.passport import Control
from server.fleet import Fleet
from server.link.roster import Roster
from tests.scripted_grid import toy_state

PATIENCE_SECONDS = 30.0  # for what must happen on a busy machine; nothing is measured by it
MODEL_BYTES = sum(value.numel() * 4 for value in toy_state().values())


def link_settings(**changes: Any) -> Settings:
    """Any free port of this machine, quick beats; ``link_silence_seconds=1`` changes link.silence_seconds."""
    values = {"link.host": "127.0.0.1", "link.port": 0, "link.beat_seconds": 0.1, "data.num_shards": 3}
    return load(("the test", values | {key.replace("_", ".", 1): value for key, value in changes.items()}))


class Diary:
    """Everything that a Fleet tells its listener, in order, a moment after it happened."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()

    def joined(self, node: str, shard: int, address: str) -> None:
        self._write(f"{node} joined with {shard}")
        assert "127.0.0.1" in address

    def left(self, node: str, reason: str) -> None:
        self._write(f"{node} left: {reason}")

    def progress(self, node: str, fraction: float) -> None:
        self._write(f"{node} {fraction:.0%}")

    def delivered(self, node: str) -> None:
        self._write(f"{node} delivered")

    def notice(self, text: str) -> None:
        self._write(f"notice: {text}")

    def wait(self, start: str, times: int = 1) -> None:
        """Until so many lines begin with ``start``."""
        with self._news:
            found = self._news.wait_for(
                lambda: sum(line.startswith(start) for line in self.lines) >= times, PATIENCE_SECONDS
            )
        assert found, f"{start!r} is not {times} times in {self.lines}"

    def _write(self, line: str) -> None:
        with self._news:
            self.lines.append(line)
            self._news.notify_all()


def fleet_with(
    diary: Diary, settings: Settings, model_bytes: int = MODEL_BYTES, control: Control | None = None
) -> Fleet:
    """A server, for the toy model unless told otherwise; plaintext unless there is passport control."""
    declare = control.declare if control else None
    roster = Roster(settings.data.num_shards, settings.federation.max_own_examples, declare=declare)
    return Fleet(settings, roster, model_bytes, diary, control)


def hello(name: str, **changes: Any) -> pb.Hello:
    """What an honest node says first; ``shard=…`` or other data must be given."""
    key = name.encode().hex()[:32].rjust(32, "0")
    known: dict[str, Any] = {
        "protocol_version": PROTOCOL_VERSION,
        "software_version": "0.1.0",
        "name": name,
        "key": key,
    }
    return pb.Hello(**known | changes)


class BareNode:
    """One stream to a server, on which any bytes can be said; it shows no sign of life by itself."""

    def __init__(self, port: int, membership: Membership | None = None, method: str = JOIN) -> None:
        self._outbox: queue.Queue[bytes | None] = queue.Queue()
        self._inbox: queue.Queue[pb.ToNode | grpc.RpcError | None] = queue.Queue()
        self._channel = channel_to(port, membership)
        join: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(method)
        self._call = join(iter(self._outbox.get, None))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "BareNode":
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()  # without a word; gRPC may show the server a broken link or a closed one
        self._outbox.put(None)
        self._channel.close()
        self._reader.join(PATIENCE_SECONDS)

    def say(self, message: pb.FromNode | bytes) -> None:
        self._outbox.put(message if isinstance(message, bytes) else message.SerializeToString())

    def hear(self, kind: str) -> Any:
        """The next message that is no beat, which must be of this kind."""
        found = self._next()
        assert isinstance(found, pb.ToNode), f"the stream ended instead of a {kind}: {found}"
        assert found.WhichOneof("kind") == kind, found
        return getattr(found, kind)

    def end(self) -> tuple[grpc.StatusCode, str]:
        """How the server ended the stream; nothing else may come before that."""
        found = self._next()
        assert not isinstance(found, pb.ToNode), found
        return self._call.code(), self._call.details() or ""

    def _next(self) -> pb.ToNode | grpc.RpcError | None:
        while True:
            found = self._inbox.get(timeout=PATIENCE_SECONDS)
            if not isinstance(found, pb.ToNode) or found.WhichOneof("kind") != "beat":
                return found

    def _read(self) -> None:
        end: grpc.RpcError | None = None
        try:
            for raw in self._call:
                self._inbox.put(pb.ToNode.FromString(raw))
        except grpc.RpcError as error:
            end = error
        self._inbox.put(end)


def channel_to(port: int, membership: Membership | None) -> grpc.Channel:
    """A connection that shows what there is of a membership: without a certificate, none."""
    address = f"127.0.0.1:{port}"
    if membership is None:
        return grpc.insecure_channel(address)
    key, certificate = (membership.key, membership.certificate) if membership.certificate else (None, None)
    credentials = grpc.ssl_channel_credentials(membership.authority, key, certificate)
    return grpc.secure_channel(address, credentials, options=(("grpc.ssl_target_name_override", SERVER_NAME),))


def until(condition: Callable[[], bool], shown: object = "") -> None:
    """Wait for what has no event of its own; ``shown`` tells how far it came."""
    waiting = threading.Event()
    for _ in range(int(PATIENCE_SECONDS / 0.01)):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError(f"it did not come to pass: {shown}")


def real_node(
    fleet: Fleet,
    said: pb.Hello,
    told: list[str],
    should_stop: Callable[[], bool] = lambda: False,
    entrance: Entrance | None = None,
    state: Path | None = None,
) -> Node:
    """The client's own node, to live in a thread of this process; it leaves after one run.

    Only one at a time may train: a process has one model.
    """
    place = Place("127.0.0.1", fleet.port, "the test names it", "flag")
    return Node(
        hello=said,
        own_data=None,
        find=lambda: place,
        once=True,
        should_stop=lambda seconds: should_stop() or threading.Event().wait(min(seconds, 0.05)),
        tell=told.append,
        show_progress=lambda _: None,
        spool=Spool(state, said.name, told.append),
        entrance=entrance,
    )
