"""One joined link: carries tasks to the main thread and updates to the server, until it ends."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc

from client.membership import Membership
from common import fleet_pb2 as pb
from common.address import join_address
from common.token import SERVER_NAME
from common.wire import CHANNEL_OPTIONS, JOIN, MAX_TASK_BYTES

CONNECT_SECONDS = 10.0
MAX_WAITING_BEATS = 4
# A server that stops in the middle of a handshake looks just the same: TLS 1.3 does not say more.
TURNED_DOWN = "the server let no link begin: it does not take this node's certificate, or it stopped just then"


@dataclass(frozen=True)
class Ended:
    """The link is over; the last thing that ``Link.receive`` gives."""

    reason: str


Received = pb.Welcome | pb.Refusal | pb.Task | pb.Verdict | pb.Farewell | pb.Certificate | pb.Owed | Ended


class Link:
    """A bidirectional stream to a server. A context manager: leaving it closes the stream.

    Three threads work on it: the reader (below), the pulse (below) and gRPC's own, which takes from
    the outbox. Everything for the user comes out of ``receive``, in order.
    """

    def __init__(self, host: str, port: int, hello: pb.Hello, membership: Membership | None = None) -> None:
        """``membership`` is for TLS on both sides; without one the link is plaintext."""
        self._membership = membership
        self.max_message_bytes = 2**63  # until the server says otherwise
        self.address = join_address(host, port)
        self.task = ""  # what this node works on; reported in every sign of life
        self.fraction = 0.0
        self.cancelled: frozenset[str] = frozenset()
        self._beat_seconds, self._silence_seconds = 1.0, CONNECT_SECONDS
        self._last_heard = time.monotonic()
        self._inbox: queue.Queue[Received] = queue.Queue()
        self._outbox: queue.Queue[pb.FromNode | None] = queue.Queue()
        self._outbox.put(pb.FromNode(hello=hello))
        self._closed = threading.Event()
        self._end = ""

    def __enter__(self) -> "Link":
        options = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", MAX_TASK_BYTES), ("grpc.enable_retries", 0))
        self._channel = self._open(options)
        join = self._channel.stream_stream(
            JOIN, request_serializer=_to_bytes, response_deserializer=pb.ToNode.FromString
        )
        self._call = join(iter(self._outbox.get, None))
        self._threads = [
            threading.Thread(target=target, name=f"link-{target.__name__}", daemon=True)
            for target in (self._read, self._pulse)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._outbox.put(None)
        self._call.cancel()
        self._channel.close()
        for thread in self._threads:
            thread.join(timeout=2)

    def _open(self, options: Sequence[tuple[str, int]]) -> grpc.Channel:
        shown = self._membership
        if shown is None:
            return grpc.insecure_channel(self.address, options=options)
        proof = (shown.key, shown.certificate) if shown.certificate else (None, None)  # gRPC aborts on half a pair
        credentials = grpc.ssl_channel_credentials(shown.authority, *proof)
        named = (*options, ("grpc.ssl_target_name_override", SERVER_NAME))
        return grpc.secure_channel(self.address, credentials, options=named)

    def receive(self, seconds: float) -> Received | None:
        """The next message, or None after ``seconds`` without one."""
        try:
            return self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None

    def send(self, message: pb.FromNode) -> None:
        """Queue a message; on a link that has ended it is lost."""
        self._outbox.put(message)

    def works_on(self, task: str, fraction: float) -> None:
        """Report from now on that ``fraction`` (0..1) of ``task`` is done; '' = idle."""
        changed = task != self.task
        self.task, self.fraction = task, fraction
        if changed:
            self._report()

    def leave(self, reason: str, seconds: float = 1.0) -> None:
        """Say farewell and give it ``seconds`` to get out."""
        self.send(pb.FromNode(farewell=pb.Farewell(reason=reason)))
        self._outbox.put(None)
        deadline = time.monotonic() + seconds
        while self._call.is_active() and time.monotonic() < deadline:
            time.sleep(0.02)

    @property
    def is_over(self) -> bool:
        """Whether the link has ended, even if ``receive`` has not come to it yet."""
        return bool(self._end)

    def _report(self) -> None:
        self.send(pb.FromNode(progress=pb.Progress(task=self.task, fraction=self.fraction)))

    def _read(self) -> None:
        try:
            for message in self._call:
                self._last_heard = time.monotonic()
                self._sort(message)
            self._finish("the server closed the link")
        except grpc.RpcError as error:
            self._finish(self._end or _reason(error, is_secure=self._membership is not None))
        except ValueError:  # the channel was closed under us
            self._finish("the link was closed")

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
                self._inbox.put(message.task)
            case "verdict":
                self._inbox.put(message.verdict)
            case "cancel":
                self.cancelled |= {message.cancel.task}
            case "certificate":
                self._inbox.put(message.certificate)
            case "owed":
                self._inbox.put(message.owed)
            case "farewell":
                self._inbox.put(message.farewell)
            case _:
                pass  # a beat: that it came is all it says

    def _finish(self, reason: str) -> None:
        self._end = self._end or reason
        self._inbox.put(Ended(self._end))

    def _pulse(self) -> None:
        """Show that this node lives, and end the link when the server does not."""
        while not self._closed.wait(self._beat_seconds):
            if time.monotonic() - self._last_heard > self._silence_seconds:
                self._end = f"the server was silent for {self._silence_seconds:g} s"
                self._call.cancel()
                return
            if self._outbox.qsize() < MAX_WAITING_BEATS:
                self._report()


def _to_bytes(message: pb.FromNode) -> bytes:
    """Always the same bytes for the same message, also in another process."""
    return message.SerializeToString(deterministic=True)


def _reason(error: grpc.RpcError, is_secure: bool = False) -> str:
    code = error.code() if isinstance(error, grpc.Call) else None
    details = (error.details() or "") if isinstance(error, grpc.Call) else str(error)
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
