"""The server's side of the link: a gRPC stream per node, and the round loop's Grid over it.

One asyncio loop in a thread of its own holds all streams; the run's thread talks to it through
``exchange``, ``settle`` and ``nodes``. The promise: a task is issued at least once, an update is
counted at most once, and every task of an exchange ends with one answer.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar
from urllib.parse import unquote

import grpc
from flwr.app import Message
from google.protobuf.message import DecodeError

from common import __version__
from common import fleet_pb2 as pb
from common.errors import WireError
from common.records import identify
from common.settings import Settings
from common.wire import MAX_HELLO_BYTES, MAX_SIGNAL_BYTES, from_update, to_task
from server.doors import bind
from server.grids import ENOUGH, TRAIN, Answer, Node, NodeGrid, Verdict
from server.passport import Control
from server.relay import Listener, Relay
from server.roster import Refused, Roster
from server.session import Session

Result = TypeVar("Result")
_LOG = logging.getLogger(__name__)
OVERSIZE_BYTES = 16 * 1024 * 1024  # so far above what is allowed a message is still read, to say how large it is
REVOCATION_SECONDS = 1.0  # how often the members file is looked at


class Assignment:
    """One issued task and what came of it."""

    def __init__(self, task: str, message: Message, shared: bytes, deadline: float) -> None:
        self.task = task
        self.message = message
        self.shared = shared  # the serialised task, less what is this node's own
        self.deadline = deadline  # on time.monotonic()
        self.issued_at = time.monotonic()
        self.bytes_down = 0
        self.outcome: asyncio.Future[tuple[pb.Update, float, int] | str] = asyncio.get_running_loop().create_future()
        self.forfeit: asyncio.TimerHandle | None = None

    @property
    def is_training(self) -> bool:
        """Whether an update is asked for; the other thing a node can do is to test the model."""
        return self.message.metadata.message_type == TRAIN

    def parcel(self) -> bytes:
        """The message to the node; protobuf merges concatenated messages, so the weights are encoded once."""
        own = pb.Task(task=self.task, deadline_seconds=max(0.0, self.deadline - time.monotonic()))
        parcel = self.shared + pb.ToNode(task=own).SerializeToString()
        self.bytes_down += len(parcel)
        return parcel

    def end(self, outcome: tuple[pb.Update, float, int] | str) -> bool:
        """Settle on an update or a reason, once; whether this was the first."""
        if self.outcome.done():
            return False
        if self.forfeit:
            self.forfeit.cancel()
        self.outcome.set_result(outcome)
        return True


class Fleet(NodeGrid):
    """The nodes that have joined over the link. A context manager: it serves from enter to exit."""

    def __init__(
        self, settings: Settings, roster: Roster, model_bytes: int, listener: Listener, control: Control | None = None
    ) -> None:
        """``control`` looks at certificates; without one, the link is plaintext and open to all."""
        identify(run_id=1, node_id=1)
        self._control = control
        self._link = settings.link
        self._rejoin_seconds = settings.federation.rejoin_seconds
        self._num_shards = settings.data.num_shards
        self._roster = roster
        self._max_message_bytes = 2 * model_bytes + MAX_SIGNAL_BYTES
        self._listener = Relay(listener)
        self._sessions: dict[int, Session] = {}
        self._assignments: dict[str, Assignment] = {}
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="link", daemon=True)
        self._ready: Future[tuple[int, int]] = Future()
        self._farewell = pb.Farewell(reason="the server stopped")
        self.port, self.enrol_port = self._link.port, 0

    def __enter__(self) -> "Fleet":
        """Listen.

        Raises:
            UsageError: the port is taken or the address is not this machine's.
        """
        self._thread.start()
        self.port, self.enrol_port = self._ready.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=5)
        self._listener.close()

    def say_farewell(self, reason: str, run_done: bool) -> None:
        """What nodes are told when this server goes; without it, that it stopped."""
        self._farewell = pb.Farewell(reason=reason, run_done=run_done)

    def nodes(self) -> list[Node]:
        """Nodes that are here and not still at work on a task that was cancelled, in node order."""
        return self._call(lambda: sorted((s.node for s in self._sessions.values() if s.free), key=lambda n: n.order))

    def wait_for_change(self, seconds: float) -> None:
        """Sleep until a node comes, goes or becomes free, or ``seconds`` are over."""
        self._changed.wait(seconds)
        self._changed.clear()

    def exchange(
        self,
        round_name: str,
        messages: Sequence[Message],
        deadline_seconds: float,
        num_enough: int = 0,
        reserve: Sequence[Message] = (),
    ) -> list[Answer]:
        """Issue tasks and wait for updates: until the last has come, its node is gone for good, or time is up."""
        exchanged = asyncio.run_coroutine_threadsafe(
            self._exchange(round_name, messages, deadline_seconds, num_enough, list(reserve)), self._loop
        ).result()
        return [_answer(assignment) for assignment in exchanged]

    def settle(self, verdicts: Iterable[Verdict]) -> None:
        """Tell those nodes that are here."""
        told = [(v.node_id, pb.Verdict(task=v.task, verdict=v.verdict, reason=v.reason)) for v in verdicts]

        def tell() -> None:
            for node_id, verdict in told:
                if node_id in self._sessions:
                    self._sessions[node_id].send(pb.ToNode(verdict=verdict))

        self._loop.call_soon_threadsafe(tell)

    # --- from here on: the link's thread ---

    def _call(self, function: Callable[[], Result]) -> Result:
        async def run() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _serve(self) -> None:
        try:
            asyncio.run(self._listen())
        except Exception as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            else:
                raise

    async def _listen(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        control = self._control
        doors = bind(
            self._link,
            control.authority if control else None,
            self._max_message_bytes + OVERSIZE_BYTES,
            self._join,
            control.enrolment.serve if control else None,
        )
        await doors.start()
        self._ready.set_result((doors.port, doors.enrol_port))
        watches = [asyncio.create_task(self._pulse()), asyncio.create_task(self._shut_out_the_revoked())]
        await self._stopping.wait()
        for watch in watches:
            watch.cancel()
        for session in self._sessions.values():
            session.finish(self._farewell)
        await asyncio.sleep(0)  # let streams that have nothing left to say end by themselves
        await doors.stop(grace=2)

    async def _pulse(self) -> None:
        """Show every node that the server lives; end links whose node does not."""
        beat = pb.ToNode(beat=pb.Beat())
        while True:
            await asyncio.sleep(self._link.beat_seconds)
            for session in list(self._sessions.values()):
                if session.silent_seconds > self._link.silence_seconds:
                    session.end(f"silent for {self._link.silence_seconds:g} s")
                elif session.is_drained:
                    session.send(beat)

    async def _shut_out_the_revoked(self) -> None:
        while self._control:
            await asyncio.sleep(REVOCATION_SECONDS)
            for session in list(self._sessions.values()):
                if reason := self._control.revocation(session.node.name, session.key):
                    session.end(reason)

    async def _join(self, _: Any, stream: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        try:
            async with asyncio.timeout(self._link.silence_seconds):
                hello = _hello(await stream.read())
            renew = self._control.identify(hello, stream.auth_context()) if self._control else False
            node = self._roster.admit(hello, __version__)
        except Refused as refusal:
            _LOG.info("refused %s: %s", _address(stream), refusal)
            told = pb.Refusal(reason=str(refusal), retry=refusal.retry, enrol=refusal.enrol)
            await stream.write(pb.ToNode(refusal=told).SerializeToString())
            return
        except (TimeoutError, WireError):
            await stream.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be a hello")
        session = Session(node, stream, hello.key)
        former = self._sessions.get(node.node_id)
        if former:
            former.end("the same node joined anew")
        self._sessions[node.node_id] = session
        session.send(pb.ToNode(welcome=self._welcome(node, renew)))
        for assignment in self._open_tasks(node):
            if assignment.forfeit:
                assignment.forfeit.cancel()
            session.send(assignment.parcel())
        address = _address(stream)
        _LOG.info("%s joined with shard %d from %s: %s", node.name, node.shard, address, _machine(hello))
        self._listener.joined(node.name, node.shard, address)
        self._changed.set()
        reason = "its link broke"
        try:
            reason = await session.run(self._handle)
        finally:
            self._leave(session, reason)

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
        if self._sessions.get(node.node_id) is not session:
            return  # replaced by a newer link of the same node
        del self._sessions[node.node_id]
        self._roster.leave(node, session.said_farewell)
        for assignment in self._open_tasks(node):
            self._forfeit_later(assignment, reason)
        _LOG.info("%s left: %s", node.name, reason)
        self._listener.left(node.name, reason)
        self._changed.set()

    def _open_tasks(self, node: Node) -> list[Assignment]:
        return [
            assignment
            for assignment in self._assignments.values()
            if assignment.message.metadata.dst_node_id == node.node_id and not assignment.outcome.done()
        ]

    def _forfeit_later(self, assignment: Assignment, reason: str) -> None:
        """A node that is gone keeps its task for a while: it may be back, with the update or to start again."""
        text = f"{reason}, and it was not back within {self._rejoin_seconds:g} s"
        assignment.forfeit = self._loop.call_later(self._rejoin_seconds, assignment.end, text)

    def _handle(self, session: Session, message: pb.FromNode, size: int) -> str:
        """Act on one message of a node; returns why to end the link, or ''."""
        kind = message.WhichOneof("kind")
        if kind == "update":
            self._take(session, _bounded(message.update, size, self._max_message_bytes), size)
        elif kind == "progress" and size <= MAX_SIGNAL_BYTES:
            was_free = session.free
            session.works_on(message.progress.task)
            if session.free and not was_free:
                self._changed.set()
            open_task = self._assignments.get(message.progress.task)
            if open_task and open_task.is_training:
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
        session.works_on("")
        self._changed.set()
        assignment = self._assignments.get(update.task)
        mine = assignment is not None and assignment.message.metadata.dst_node_id == session.node.node_id
        if assignment is not None and mine and assignment.end((update, time.monotonic(), size)):
            if assignment.is_training:
                self._listener.delivered(session.node.name)
            return
        counted = assignment is not None and mine and not isinstance(assignment.outcome.result(), str)
        reason = "an update for it is in already" if counted else "this task is not open (any more)"
        session.send(pb.ToNode(verdict=pb.Verdict(task=update.task[:200], verdict="expired", reason=reason)))

    async def _exchange(
        self,
        round_name: str,
        messages: Sequence[Message],
        deadline_seconds: float,
        num_enough: int,
        reserve: list[Message],
    ) -> list[Assignment]:
        deadline = time.monotonic() + deadline_seconds
        names = {node.node_id: f"{round_name}/{node.name}" for node in self._roster.seen()}
        shared: dict[int, bytes] = {}  # by the identity of the content, which messages share
        assignments = [self._issue(names, message, deadline, shared) for message in messages]
        waited_for, num_updates = {assignment.outcome for assignment in assignments}, 0
        needs_each = bool(num_enough or reserve)  # to wait for one after another costs more, with many nodes
        while waited_for and (left := deadline - time.monotonic()) > 0:
            ended, waited_for = await asyncio.wait(
                waited_for,
                timeout=left,
                return_when=asyncio.FIRST_COMPLETED if needs_each else asyncio.ALL_COMPLETED,
            )
            num_updates += sum(_is_update(outcome.result()) for outcome in ended)
            if num_enough and num_updates >= num_enough:
                break
            num_vanished = sum(isinstance(outcome.result(), str) for outcome in ended)
            for message in self._free(reserve, num_vanished):
                assignments.append(self._issue(names, message, deadline, shared))
                waited_for.add(assignments[-1].outcome)
        is_enough = bool(num_enough) and num_updates >= num_enough
        for assignment in assignments:
            del self._assignments[assignment.task]
            if assignment.end(ENOUGH if is_enough else f"no update within {deadline_seconds:g} s"):
                self._cancel(assignment, ENOUGH if is_enough else "the round's time is up")
        return assignments

    def _issue(
        self, names: Mapping[int, str], message: Message, deadline: float, shared: dict[int, bytes]
    ) -> Assignment:
        """Send a task, named by its node's id, to its node; ``shared`` are the parcels of contents so far."""
        node_id = message.metadata.dst_node_id
        parcel = shared.get(id(message.content)) or _shared_parcel(message)
        shared[id(message.content)] = parcel
        assignment = Assignment(names[node_id], message, parcel, deadline)
        self._assignments[assignment.task] = assignment
        if node_id in self._sessions:
            self._sessions[node_id].send(assignment.parcel())
        else:
            self._forfeit_later(assignment, "it left")
        return assignment

    def _free(self, reserve: list[Message], number: int) -> list[Message]:
        """Take the next ``number`` messages out of ``reserve`` whose nodes are here and free."""
        taken: list[Message] = []
        while reserve and len(taken) < number:
            message = reserve.pop(0)
            session = self._sessions.get(message.metadata.dst_node_id)
            if session and session.free:
                taken.append(message)
        return taken

    def _cancel(self, assignment: Assignment, reason: str) -> None:
        session = self._sessions.get(assignment.message.metadata.dst_node_id)
        if session:
            session.cancel(assignment.task, reason)


def _is_update(outcome: tuple[pb.Update, float, int] | str) -> bool:
    return not isinstance(outcome, str) and not outcome[0].error


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


def _shared_parcel(message: Message) -> bytes:
    return pb.ToNode(task=to_task(message)).SerializeToString()


def _answer(assignment: Assignment) -> Answer:
    """What an assignment came to."""
    outcome, node_id = assignment.outcome.result(), assignment.message.metadata.dst_node_id
    if isinstance(outcome, str):
        return Answer(node_id, None, outcome, time.monotonic() - assignment.issued_at, assignment.bytes_down, 0)
    update, arrived_at, size = outcome
    reply = from_update(update, assignment.message)
    return Answer(node_id, reply, "", arrived_at - assignment.issued_at, assignment.bytes_down, size)
