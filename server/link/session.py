"""One node's stream as the server sees it: what waits to be sent, and when the node was last heard."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from common import fleet_pb2 as pb
from server.grids import Node
from server.link.reads import Reads
from server.link.sends import Sends
from server.link.work import Work

BEAT = pb.ToNode(beat=pb.Beat())
MAX_WAITING = 64  # messages; a node that reads so slowly that this many wait is gone
UNREAD = "it does not read what it is sent"
# A message that takes longer to go out ends the link. Far slower than any line on which training makes sense: nodes
# whose tasks go out at the same time share the server's line.
UNREAD_SECONDS, UNREAD_BYTES_A_SECOND = 600.0, 16 * 1024  # whichever is longer


class Session:
    """A joined node's link, used from the link's thread alone."""

    def __init__(
        self,
        node: Node,
        stream: "grpc.aio.ServicerContext[bytes, bytes]",
        key: str,
        sends: Sends,
        reads: Reads,
        beat_seconds: float,
    ) -> None:
        """What is large waits for a turn of ``sends`` or ``reads``.

        Every ``beat_seconds`` in which a message waits to be sent, the node is shown a beat.
        """
        self.node = node
        self.key = key
        self.has_renewed = False  # its certificate, on this link
        self.said_farewell = False
        self._stream = stream
        self._sends, self._reads, self._beat_seconds = sends, reads, beat_seconds
        self._outbox: deque[pb.ToNode | Callable[[], bytes] | None] = deque()
        self._writing: asyncio.Task[str] | None = None  # an idle link has none: a thousand would be megabytes
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._last_heard = self._loop.time()
        self._read_by = math.inf  # when what is being written must have gone out
        self.work = Work()

    @property
    def silent_seconds(self) -> float:
        """Time since the node was last heard."""
        return self._loop.time() - self._last_heard

    @property
    def is_stuck(self) -> bool:
        """Whether what is being written is taken so slowly that the node can hardly be reading."""
        return self._loop.time() > self._read_by

    @property
    def is_drained(self) -> bool:
        """Whether nothing waits to be sent."""
        return not self._outbox

    def send(self, message: pb.ToNode | Callable[[], bytes]) -> None:
        """Queue a message; one that is large is made when its turn comes."""
        if len(self._outbox) >= MAX_WAITING:
            self.end(UNREAD)
            return
        self._put(message)

    def cancel(self, task: str, reason: str) -> None:
        """Tell the node to drop a task; until it says that it has, it is not free."""
        self.work.cancel(task)
        self.send(pb.ToNode(cancel=pb.Cancel(task=task, reason=reason)))

    def finish(self, farewell: pb.Farewell) -> None:
        """Send what waits, then a farewell, then close."""
        self.send(pb.ToNode(farewell=farewell))
        self._put(None)

    def end(self, reason: str) -> None:
        """Close now."""
        if not self._over.done():
            self._over.set_result(reason)

    async def run(self, handle: Callable[["Session", pb.FromNode, int], str]) -> str:
        """Carry messages until the link ends; returns why it did."""
        reading = self._begin(self._read(handle))
        try:
            return await self._over
        finally:
            tasks = [task for task in (reading, self._writing) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, str]) -> asyncio.Task[str]:
        """Do what ends the link if it fails, or returns why."""

        def ended(task: asyncio.Task[str]) -> None:
            if not task.cancelled() and (reason := "its link broke" if task.exception() else task.result()):
                self.end(reason)

        task = asyncio.create_task(work)
        task.add_done_callback(ended)
        return task

    async def _read(self, handle: Callable[["Session", pb.FromNode, int], str]) -> str:
        while not (reason := self._hear(await self._next(), handle)):
            pass
        return reason

    async def _next(self) -> Any:
        if not self.work.is_due:
            return await self._stream.read()
        self.work.is_due = False
        self._last_heard = math.inf  # who has to wait is not silent
        async with self._reads.turn():
            self._last_heard = self._loop.time()
            return await self._stream.read()

    def _hear(self, raw: Any, handle: Callable[["Session", pb.FromNode, int], str]) -> str:
        """Act on what came; why to end the link, or ''. Nothing of it is kept here while the next is waited for."""
        if not isinstance(raw, bytes):
            return "it closed its link"
        self._last_heard = self._loop.time()
        try:
            return handle(self, pb.FromNode.FromString(raw), len(raw))
        except DecodeError:
            return "it sent bytes that are no message"

    def _put(self, queued: pb.ToNode | Callable[[], bytes] | None) -> None:
        self._outbox.append(queued)
        if self._writing is None or self._writing.done():
            self._writing = self._begin(self._write())

    async def _write(self) -> str:
        while self._outbox:
            if not await self._write_one(self._outbox.popleft()):
                return "the server said farewell"
        return ""

    async def _write_one(self, queued: pb.ToNode | Callable[[], bytes] | None) -> bool:
        """Write what was queued, and keep no copy of it; False = that was all."""
        if isinstance(queued, pb.ToNode):
            await self._write_bytes(queued.SerializeToString())
            self.work.told_to_drop(queued.cancel.task)
        elif queued is not None:
            async with self._sends.turn(self._beat_seconds, self._show_life):
                await self._write_bytes(queued())
        return queued is not None

    async def _show_life(self) -> None:
        await self._write_bytes(BEAT.SerializeToString())

    async def _write_bytes(self, raw: bytes) -> None:
        self._read_by = self._loop.time() + max(UNREAD_SECONDS, len(raw) / UNREAD_BYTES_A_SECOND)
        await self._stream.write(raw)
        self._read_by = math.inf
