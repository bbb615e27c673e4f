"""The link's listener: a gRPC stream per node, who is joined, and what each message in does."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from common import __version__
from common import fleet_pb2 as pb
from common.errors import WireError
from common.settings import Settings
from common.wire import MAX_HELLO_BYTES, MAX_SIGNAL_BYTES
from server.admission.passport import Control
from server.admission.refused import Refused
from server.grids import Node
from server.link.doors import bind
from server.link.held import TOO_MANY, Held
from server.link.open_tasks import OpenTasks
from server.link.reads import Reads
from server.link.relay import Listener
from server.link.roster import Roster
from server.link.sends import Sends
from server.link.session import BEAT, UNREAD, Session

_LOG = logging.getLogger(__name__)
OVERSIZE_BYTES = 16 * 1024 * 1024  # so far above what is allowed a message is still read, to say how large it is
REVOCATION_SECONDS = 1.0  # how often the members file is looked at


class Streams:
    """The nodes that have joined. Used from the link's thread alone."""

    def __init__(
        self,
        settings: Settings,
        roster: Roster,
        model_bytes: int,
        listener: Listener,
        control: Control | None,
        changed: Callable[[], None],
    ) -> None:
        """``changed`` is called when a node comes, goes or becomes free; for the rest see ``Fleet``."""
        self.sessions: dict[int, Session] = {}  # by node id
        self.tasks = OpenTasks(self.sessions, settings.federation.rejoin_seconds)
        self._untold: dict[int, pb.Verdict] = {}  # the last verdict of each node that was not here
        self._control = control
        self._link = settings.link
        self._num_shards = settings.data.num_shards
        self._roster = roster
        self._max_message_bytes = 2 * model_bytes + MAX_SIGNAL_BYTES
        self._sends, self._reads = Sends(model_bytes), Reads(model_bytes, settings.federation.clients)
        self._held = Held()
        self._listener = listener
        self._changed = changed

    async def serve(
        self, ready: Callable[[int, int], None], stopping: asyncio.Event, farewell: Callable[[], pb.Farewell]
    ) -> None:
        """Listen until ``stopping``, then say ``farewell``; ``ready`` is told the ports of the link and of enrolment.

        Raises:
            UsageError: a port is taken or the address is not this machine's.
        """
        control = self._control
        doors = bind(
            self._link,
            control.authority if control else None,
            (("grpc.max_receive_message_length", self._max_message_bytes + OVERSIZE_BYTES), *self._reads.options),
            self.join,
            control.enrolment.serve if control else None,
        )
        await doors.start()
        ready(doors.port, doors.enrol_port)
        watches = [asyncio.create_task(self.pulse()), asyncio.create_task(self._shut_out_the_revoked())]
        await stopping.wait()
        for watch in watches:
            watch.cancel()
        for session in self.sessions.values():
            session.finish(farewell())
        await asyncio.sleep(0)  # let streams that have nothing left to say end by themselves
        await doors.stop(grace=2)
        # Calls that were cut off still have to end: a loop that closes over them shows each as a traceback.
        if rest := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(rest, timeout=1)

    def tell(self, node_id: int, verdict: pb.Verdict) -> None:
        """Tell a node what became of its update, now or when it is back."""
        if node_id in self.sessions:
            self.sessions[node_id].send(pb.ToNode(verdict=verdict))
        else:
            self._untold[node_id] = verdict

    async def pulse(self) -> None:
        """Show every node that the server lives; end links whose node does not."""
        while True:
            await asyncio.sleep(self._link.beat_seconds)
            for session in list(self.sessions.values()):
                if session.silent_seconds > self._link.silence_seconds:
                    session.end(f"silent for {self._link.silence_seconds:g} s")
                elif session.is_stuck:
                    session.end(UNREAD)
                elif session.is_drained:
                    session.send(BEAT)

    async def _shut_out_the_revoked(self) -> None:
        while self._control:
            await asyncio.sleep(REVOCATION_SECONDS)
            for session in list(self.sessions.values()):
                if reason := self._control.revocation(session.node.name, session.key):
                    session.end(reason)

    async def join(self, _: Any, stream: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        """Handle a call of Join: one stream, from its hello to its end."""
        hello = await self._greeted(stream)
        try:
            renew = self._control.identify(hello, stream.auth_context()) if self._control else False
            if not self._held.keep(hello.name, hello.key, stream):
                _LOG.info("refused %s: %s", _address(stream), TOO_MANY)
                # A refusal would wait to be read as well; the status of a stream that says nothing does not.
                await stream.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY)
            node = self._roster.admit(hello, __version__)
        except Refused as refusal:
            _LOG.info("refused %s: %s", _address(stream), refusal)
            told = pb.Refusal(reason=str(refusal), retry=refusal.retry, enrol=refusal.enrol)
            await stream.write(pb.ToNode(refusal=told).SerializeToString())
            return
        session = Session(node, stream, hello.key, self._sends, self._reads, self._link.beat_seconds)
        self._enter(session, renew)
        address = _address(stream)
        _LOG.info("%s joined with shard %d from %s: %s", node.name, node.shard, address, _machine(hello))
        self._listener.joined(node.name, node.shard, address)
        self._changed()
        reason = "its link broke"
        try:
            reason = await session.run(self._handle)
        finally:
            self._leave(session, reason)

    async def _greeted(self, stream: "grpc.aio.ServicerContext[bytes, bytes]") -> pb.Hello:
        try:
            async with asyncio.timeout(self._link.silence_seconds):
                return _hello(await stream.read())
        except (TimeoutError, WireError):
            await stream.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a hello")

    def _enter(self, session: Session, renew: bool) -> None:
        """Put ``session`` in the place of the node's former one, and send what waited for it."""
        node = session.node
        if former := self.sessions.get(node.node_id):
            former.end("the same node joined anew")
        self.sessions[node.node_id] = session
        session.send(pb.ToNode(welcome=self._welcome(node, renew)))
        if verdict := self._untold.pop(node.node_id, None):
            session.send(pb.ToNode(verdict=verdict))
        self.tasks.issue_again(session)

    def _welcome(self, node: Node, renew: bool) -> pb.Welcome:
        return pb.Welcome(
            shard=node.shard,
            num_shards=self._num_shards,
            beat_seconds=self._link.beat_seconds,
            silence_seconds=self._link.silence_seconds,
            max_message_bytes=self._max_message_bytes,
            renew=renew,
        )

    def _leave(self, session: Session, reason: str) -> None:
        node = session.node
        if self.sessions.get(node.node_id) is not session:
            return  # replaced by a newer link of the same node
        del self.sessions[node.node_id]
        self._roster.leave(node, session.said_farewell)
        self.tasks.forfeit_later(node, reason)
        _LOG.info("%s left: %s", node.name, reason)
        self._listener.left(node.name, reason)
        self._changed()

    def _handle(self, session: Session, message: pb.FromNode, size: int) -> str:
        """Act on one message of a node; returns why to end the link, or ''."""
        kind = message.WhichOneof("kind")
        if kind == "update":
            self._take(session, _bounded(message.update, size, self._max_message_bytes), size)
        elif kind == "progress" and size <= MAX_SIGNAL_BYTES:
            was_free = session.work.is_free
            session.work.says(message.progress.task, message.progress.since_seconds)
            if session.work.is_free and not was_free:
                self._changed()
            if self.tasks.is_training(message.progress.task):
                self._listener.progress(session.node.name, min(1.0, max(0.0, message.progress.fraction)))
        elif kind == "renewal" and size <= MAX_HELLO_BYTES and self._control:
            return self._renew(session, message.renewal.request)
        elif kind == "farewell" and size <= MAX_SIGNAL_BYTES:
            session.said_farewell = True
            return " ".join(message.farewell.reason[:200].split()) or "it left"
        else:
            return f"it sent an unexpected {kind or 'message'}"
        return ""

    def _renew(self, session: Session, request: bytes) -> str:
        assert self._control, "who has no certificate cannot renew it"
        certificate = self._control.renewed(request, session.node.name, session.key)
        if certificate is None or session.has_renewed:
            return "it sent an unexpected renewal"
        session.has_renewed = True
        session.send(pb.ToNode(certificate=pb.Certificate(certificate=certificate)))
        return ""

    def _take(self, session: Session, update: pb.Update, size: int) -> None:
        seen = session.work.answers(update.task)
        self._changed()
        is_training = self.tasks.is_training(update.task)
        if reason := self.tasks.take(session.node, update, size, seen):
            session.send(pb.ToNode(verdict=pb.Verdict(task=update.task[:200], verdict="expired", reason=reason)))
        elif is_training:
            self._listener.delivered(session.node.name)


def _bounded(update: pb.Update, size: int, most: int) -> pb.Update:
    """The update, or in place of one that is too large an error that says so."""
    if size <= most:
        return update
    return pb.Update(task=update.task[:200], error=f"its update has {size:,} bytes, this server takes at most {most:,}")


def _hello(first: Any) -> pb.Hello:
    """The first message of a stream.

    Raises:
        WireError: it is no hello.
    """
    if not isinstance(first, bytes) or len(first) > MAX_HELLO_BYTES:
        raise WireError("no hello")
    try:
        message = pb.FromNode.FromString(first)
    except DecodeError:
        raise WireError("no hello") from None
    if message.WhichOneof("kind") != "hello":
        raise WireError("no hello")
    return message.hello


def _address(stream: "grpc.aio.ServicerContext[bytes, bytes]") -> str:
    """Where a node calls from, as people write it: gRPC says ``ipv4:10.0.0.2:34172`` or ``ipv6:%5B::1%5D:34172``."""
    return unquote(stream.peer()).partition(":")[2]


def _machine(hello: pb.Hello) -> str:
    machine = hello.machine
    text = f"{machine.cpu}, {machine.cores} cores, torch {machine.torch}, Python {machine.python}"
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
