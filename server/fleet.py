"""The round loop's Grid over the link.

One asyncio loop in a thread of its own holds all streams (``server.link.streams``) and the tasks that are
out (``server.link.open_tasks``); the run's thread talks to it through ``exchange``, ``settle`` and
``nodes``. The promise: a task is issued at least once, an update is counted at most once, and every
task of an exchange ends with one answer.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from common import fleet_pb2 as pb
from common.records import identify
from common.settings import Settings
from server.admission.passport import Control
from server.grids import Answer, Debt, Node, NodeGrid, Tasks, Verdict
from server.link.assignment import Assignment
from server.link.debts import Paid
from server.link.relay import Listener, Relay
from server.link.roster import Roster
from server.link.streams import Streams

Result = TypeVar("Result")


class Fleet(NodeGrid):
    """The nodes that have joined over the link. A context manager: it serves from enter to exit."""

    takes_late = True

    def __init__(
        self, settings: Settings, roster: Roster, model_bytes: int, listener: Listener, control: Control | None = None
    ) -> None:
        """``control`` looks at certificates; without one, the link is plaintext and open to all."""
        identify(run_id=1, node_id=1)
        self._roster = roster
        self._listener = Relay(listener)
        self._changed = threading.Event()
        if control:
            control.notice = self._listener.notice
        self._streams = Streams(settings, roster, model_bytes, self._listener, control, self._changed.set)
        self._thread = threading.Thread(target=self._serve, name="link", daemon=True)
        self._ready: Future[tuple[int, int]] = Future()
        self._farewell = pb.Farewell(reason="the server stopped")
        self.port, self.enrol_port = settings.link.port, 0

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
        """Nodes that are here and not still at work on the task of a former round, in node order."""
        return self._here(free=True)

    def busy(self) -> list[Node]:
        """Nodes that are here and still at work on the task of a former round, in node order."""
        return self._here(free=False)

    def _here(self, free: bool) -> list[Node]:
        async def look() -> list[Node]:
            return [session.node for session in self._streams.sessions.values() if session.work.is_free is free]

        return sorted(self._on_the_link(look()), key=lambda node: node.order)

    def wait_for_change(self, seconds: float) -> None:
        """Sleep until a node comes, goes or becomes free, or ``seconds`` are over."""
        self._changed.wait(seconds)
        self._changed.clear()

    def exchange(self, tasks: Tasks) -> Iterator[Answer]:
        """Issue tasks and wait for updates: until the last has come, its node is gone for good, or time is up."""
        ended: SimpleQueue[Assignment | None] = SimpleQueue()

        async def exchange() -> None:
            names = {node.node_id: f"{tasks.round_name}/{node.name}" for node in self._roster.seen()}
            try:
                await self._streams.tasks.exchange(names, tasks, ended.put)
            finally:
                self._loop.call_soon(ended.put, None)  # after those that ended with it

        return _answers(ended, asyncio.run_coroutine_threadsafe(exchange(), self._loop))

    def owe(self, debts: Iterable[Debt]) -> None:
        """See ``NodeGrid``; until this is called, whoever is late has expired."""
        owed = list(debts)

        async def owe() -> None:
            self._streams.tasks.owe(owed)

        self._on_the_link(owe())

    def late(self) -> dict[str, Answer]:
        """See ``NodeGrid``."""

        async def collect() -> list[Paid]:
            return self._streams.tasks.debts.collect()

        return {paid.debt.task: paid.answer() for paid in self._on_the_link(collect())}

    def settle(self, verdicts: Iterable[Verdict]) -> None:
        """Tell those nodes that are here; the others are told their last verdict when they are back."""
        told = [(v.node_id, pb.Verdict(task=v.task, verdict=v.verdict, reason=v.reason)) for v in verdicts]

        def tell() -> None:
            for node_id, verdict in told:
                self._streams.tell(node_id, verdict)

        self._loop.call_soon_threadsafe(tell)

    def _on_the_link(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # --- from here on: the link's thread ---

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
        await self._streams.serve(
            lambda *ports: self._ready.set_result(ports), self._stopping, farewell=lambda: self._farewell
        )


def _answers(ended: "SimpleQueue[Assignment | None]", exchange: "Future[None]") -> Iterator[Answer]:
    """What the tasks of an exchange come to, as they end."""
    while assignment := ended.get():
        yield assignment.answer()
    exchange.result()
