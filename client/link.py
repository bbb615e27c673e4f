"""One joined link: carries tasks to the main thread and updates to the server, until it ends."""

import asyncio
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from client.loop import link_loop
from client.membership import Membership
from common import fleet_pb2 as pb
from common.address import join_address
from common.token import SERVER_NAME
from common.wire import CHANNEL_OPTIONS, JOIN, MAX_TASK_BYTES

CONNECT_SECONDS = 10.0
MAX_WAITING_BEATS = 4
MAX_CANCELLED = 8  # names that are kept: a server gives a node no new task before it has dropped the last one
QUIET_SECONDS = 0.01  # a task that is done sooner is not spoken of: its update is there as soon as the word would be
# A server that stops in the middle of a handshake looks just the same: TLS 1.3 does not say more.
TURNED_DOWN = "the server let no link begin: it does not take this node's certificate, or it stopped just then"


@dataclass(frozen=True)
class Ended:
    """The link is over; the last thing that ``Link.receive`` gives."""

    reason: str


Received = pb.Welcome | pb.Refusal | pb.Task | pb.Verdict | pb.Farewell | pb.Certificate | pb.Owed | Ended


class Link:
    """A bidirectional stream to a server. A context manager: leaving it closes the stream.

    Reader, writer and pulse are tasks of one loop (``client.loop``), which has a thread of its own. Everything for the
    user comes out of ``receive``, in order.
    """

    def __init__(self, host: str, port: int, hello: pb.Hello, membership: Membership | None = None) -> None:
        """``membership`` is for TLS on both sides; without one the link is plaintext."""
        self._membership = membership
        self.max_message_bytes = 2**63  # until the server says otherwise
        self.address = join_address(host, port)
        self.task = ""  # what this node works on; reported in every sign of life
        self.fraction = 0.0
        self._since, self._is_told = 0.0, False  # when that task came, and whether the server has heard of it
        self.cancelled: tuple[str, ...] = ()  # the last tasks that the server told to drop
        self._beat_seconds, self._silence_seconds = 1.0, CONNECT_SECONDS
        self._last_heard = time.monotonic()
        self._inbox: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self._outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._outbox.put_nowait(_to_bytes(pb.FromNode(hello=hello)))
        self._leaving = asyncio.Event()
        self._gone = threading.Event()
        self._end = ""

    def __enter__(self) -> "Link":
        self._loop = link_loop()
        asyncio.run_coroutine_threadsafe(self._live(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._leaving.set)
        self._gone.wait(2)

    def receive(self, seconds: float) -> Received | None:
        """The next message, or None after ``seconds`` without one."""
        try:
            return self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None

    def send(self, message: pb.FromNode) -> None:
        """Queue a message; on a link that has ended it is lost."""
        self._loop.call_soon_threadsafe(self._outbox.put_nowait, _to_bytes(message))

    def finish(self, update: pb.FromNode | None = None) -> None:
        """The task in hand is over, and ``update`` came of it; None: nothing did."""
        self.task, self.fraction = "", 0.0
        if self._is_told or update is None:
            self.send(self._progress())
        if update is not None:
            self.send(update)

    def leave(self, reason: str, seconds: float = 1.0) -> None:
        """Say farewell and give it ``seconds`` to get out."""
        self.send(pb.FromNode(farewell=pb.Farewell(reason=reason)))
        self._loop.call_soon_threadsafe(self._outbox.put_nowait, None)
        self._gone.wait(seconds)

    @property
    def is_over(self) -> bool:
        """Whether the link has ended, even if ``receive`` has not come to it yet."""
        return bool(self._end)

    def _progress(self) -> pb.FromNode:
        since = time.monotonic() - self._since if self.task else 0.0
        return pb.FromNode(progress=pb.Progress(task=self.task, fraction=self.fraction, since_seconds=since))

    # --- from here on: the loop's thread ---

    async def _live(self) -> None:
        try:
            async with self._open() as channel:
                self._end = await self._carry(channel.stream_stream(JOIN)())
        finally:
            self._end = self._end or "the link broke"
            self._inbox.put(Ended(self._end))
            self._gone.set()

    def _open(self) -> grpc.aio.Channel:
        options = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", MAX_TASK_BYTES), ("grpc.enable_retries", 0))
        shown = self._membership
        if shown is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        proof = (shown.key, shown.certificate) if shown.certificate else (None, None)  # gRPC aborts on half a pair
        credentials = grpc.ssl_channel_credentials(shown.authority, *proof)
        named = (*options, ("grpc.ssl_target_name_override", SERVER_NAME))
        return grpc.aio.secure_channel(self.address, credentials, options=named)

    async def _carry(self, call: Any) -> str:
        """Carry messages until the link ends; returns why it did."""
        works = [asyncio.create_task(work) for work in (self._read(call), self._pulse(), self._closed())]
        writing = asyncio.create_task(self._write(call))
        try:
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            return next(work for work in works if work in done).result()
        finally:
            for task in (*works, writing):
                task.cancel()
            await asyncio.gather(*works, writing, return_exceptions=True)

    async def _closed(self) -> str:
        await self._leaving.wait()
        return "the link was closed"

    async def _read(self, call: Any) -> str:
        try:
            while (raw := await call.read()) is not grpc.aio.EOF:
                self._last_heard = time.monotonic()
                self._sort(pb.ToNode.FromString(raw))
        except grpc.aio.AioRpcError as error:
            return _reason(error, is_secure=self._membership is not None)
        except DecodeError:
            return "the link broke (what came is no message)"
        return "the server closed the link"

    def _sort(self, message: pb.ToNode) -> None:
        match message.WhichOneof("kind"):
            case "welcome":
                # Bounded: what a server says must not stop the signs of life.
                self._beat_seconds = min(max(message.welcome.beat_seconds, 0.05), 60.0)
                self._silence_seconds = min(max(message.welcome.silence_seconds, 2 * self._beat_seconds), 600.0)
                self.max_message_bytes = message.welcome.max_message_bytes or self.max_message_bytes
                self._inbox.put(message.welcome)
            case "refusal":
                self._inbox.put(message.refusal)
            case "task":
                self._take(message.task)
            case "verdict":
                self._inbox.put(message.verdict)
            case "cancel":
                self.cancelled = (*self.cancelled, message.cancel.task)[-MAX_CANCELLED:]
            case "certificate":
                self._inbox.put(message.certificate)
            case "owed":
                self._inbox.put(message.owed)
            case "farewell":
                self._inbox.put(message.farewell)
            case _:
                pass  # a beat: that it came is all it says

    def _take(self, task: pb.Task) -> None:
        self.task, self.fraction, self._since, self._is_told = task.task, 0.0, time.monotonic(), False
        self._inbox.put(task)
        self._loop.call_later(QUIET_SECONDS, self._tell, task.task)

    def _tell(self, task: str) -> None:
        if self.task == task and not self._is_told:
            self._show_life()

    def _show_life(self) -> None:
        self._is_told = bool(self.task)
        self._outbox.put_nowait(_to_bytes(self._progress()))

    async def _write(self, call: Any) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it is over: the reader knows why
            while (raw := await self._outbox.get()) is not None:
                await call.write(raw)
            await call.done_writing()

    async def _pulse(self) -> str:
        """Show that this node lives, and end the link when the server does not."""
        while True:
            await asyncio.sleep(self._beat_seconds)
            if time.monotonic() - self._last_heard > self._silence_seconds:
                return f"the server was silent for {self._silence_seconds:g} s"
            if self._outbox.qsize() < MAX_WAITING_BEATS:
                self._show_life()


def _to_bytes(message: pb.FromNode) -> bytes:
    """Always the same bytes for the same message, also in another process."""
    return message.SerializeToString(deterministic=True)


def _reason(error: grpc.aio.AioRpcError, is_secure: bool = False) -> str:
    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.UNAVAILABLE and is_secure and "connect" in details.lower():
        return TURNED_DOWN
    if code == grpc.StatusCode.UNAVAILABLE:
        return "no server answers there" if "connect" in details.lower() else "the link broke"
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return "what answers there is no Fedge server"
    return f"the link broke ({' '.join(details.split())[:120]})"


def messages(link: Link, seconds: float) -> Iterator[Received | None]:
    """All that comes, None whenever ``seconds`` pass without anything; ends after ``Ended``."""
    while True:
        received = link.receive(seconds)
        yield received
        if isinstance(received, Ended):
            return
