"""A Grid that runs ClientApps inside this process, or over worker processes: no sockets, no Ray.

The figures do not depend on the number of workers: every fit uses one thread and a random stream of
its own, and updates are averaged in node order.
"""

import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict

from common import fleet_pb2 as pb
from common.errors import Interrupted, RunFailed
from common.records import answer as run_app
from common.records import identify
from common.wire import from_task, from_update, own_config, shared_parts, to_task, to_update
from server.grids import NOBODY, TRAIN, Answer, Node, NodeGrid, Reserve, num_bytes
from server.remembered import from_memory, to_memory
from server.storage.checkpoint import Plain

ClientApp = Callable[[Message, Context], Message]

_SIGNALS = {signal.SIGINT, signal.SIGTERM}


class Simulation(NodeGrid):
    """``num_nodes`` virtual nodes, each holding the shard of its number.

    Use as a context manager: it ends its workers.
    """

    def __init__(self, client_app: str, num_nodes: int, num_workers: int = 1) -> None:
        """``client_app`` is ``module:attribute``, so that workers can import it for themselves."""
        identify(run_id=1, node_id=1)
        torch.set_num_threads(1)
        self._nodes = [Node(number + 1, f"sim-{number}", number) for number in range(num_nodes)]
        self._client_app = client_app
        self._remembered: dict[int, RecordDict] = {}  # what each node's ClientApp keeps from task to task
        self._workers: ProcessPoolExecutor | None = None
        self.listener: Callable[[str], None] = lambda _: None  # told each node's name when it has delivered
        if num_workers > 1:
            spawn = multiprocessing.get_context("spawn")
            # Nothing is ever sent: the writing end is this process's alone, and closed when it ends, however it does.
            workers_end, self._life = spawn.Pipe(duplex=False)
            self._workers = ProcessPoolExecutor(
                num_workers, spawn, initializer=_start_worker, initargs=(client_app, workers_end)
            )

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._workers:
            if kind is not None:
                self._life.close()  # nobody waits any more for the fits in hand
            self._workers.shutdown(wait=True, cancel_futures=True)
            self._life.close()

    def nodes(self) -> list[Node]:
        """All virtual nodes: they never leave."""
        return list(self._nodes)

    def exchange(
        self,
        round_name: str,
        messages: Sequence[Message],
        deadline_seconds: float,
        num_enough: int = 0,
        reserve: Reserve = NOBODY,
    ) -> list[Answer]:
        """Train the nodes one after another, or as many at once as there are workers; nobody expires."""
        del round_name, deadline_seconds, num_enough, reserve
        start = time.monotonic()
        answers = []
        for message, reply in zip(messages, self._replies(messages), strict=True):
            node_id = message.metadata.dst_node_id
            if message.metadata.message_type == TRAIN:
                self.listener(f"sim-{node_id - 1}")
            seconds = time.monotonic() - start
            answers.append(Answer(node_id, reply, "", seconds, num_bytes(message), num_bytes(reply)))
        return answers

    def memory(self) -> dict[str, Plain]:
        """What the nodes' ClientApps remember; empty if a checkpoint has no room for it."""
        return to_memory(self._remembered)

    def restore(self, memory: Mapping[str, Plain]) -> None:
        """See ``NodeGrid``."""
        self._remembered = from_memory(memory)

    def _replies(self, messages: Sequence[Message]) -> Any:
        if self._workers is None:
            app = _load(self._client_app)
            return (run_app(app, message, self._context(message), let_through=(Interrupted,)) for message in messages)
        parcels: dict[tuple[int, int], bytes] = {}  # what messages share is packed once
        futures: list[Future[tuple[bytes, RecordDict]]] = []
        with _signals_held_back():  # the first tasks start the workers
            for message in messages:
                parts = shared_parts(message)
                parcel = parcels[parts] = parcels.get(parts) or to_task(message).SerializeToString()
                parcel += pb.Task(config=own_config(message)).SerializeToString()
                futures.append(self._workers.submit(_work, parcel, self._context(message)))
        return (self._reply(message, future) for message, future in zip(messages, futures, strict=True))

    def _context(self, message: Message) -> Context:
        node_id = message.metadata.dst_node_id
        state = self._remembered.setdefault(node_id, RecordDict())
        return Context(run_id=1, node_id=node_id, node_config={"partition-id": node_id - 1}, state=state, run_config={})

    def _reply(self, message: Message, future: "Future[tuple[bytes, RecordDict]]") -> Message:
        try:
            update, self._remembered[message.metadata.dst_node_id] = future.result()
        except BrokenProcessPool:
            raise RunFailed("a simulation worker died (out of memory?); try fewer with simulation.workers") from None
        return from_update(pb.Update.FromString(update), message)


def _load(client_app: str) -> ClientApp:
    module, _, attribute = client_app.partition(":")
    app: ClientApp = getattr(importlib.import_module(module), attribute)
    return app


_worker_app: ClientApp | None = None


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Processes started meanwhile begin with Ctrl-C and SIGTERM blocked; what comes here comes a moment later."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _start_worker(client_app: str, parents_life: Connection) -> None:
    """Import once, keep warm. Signals to the whole group are the parent's business; its end is that of its workers."""
    global _worker_app
    os.setpgid(0, 0)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # what has come already is forgotten
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how the pool ends its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with, args=(parents_life,), daemon=True).start()
    torch.set_num_threads(1)
    _worker_app = _load(client_app)


def _end_with(parents_life: Connection) -> None:
    parents_life.poll(None)
    os._exit(1)


def _work(parcel: bytes, context: Context) -> tuple[bytes, RecordDict]:
    """The update, and what the node remembers after it: its next task may go to another worker."""
    assert _worker_app is not None
    identify(run_id=1, node_id=context.node_id)
    message = from_task(pb.Task.FromString(parcel), context.node_id)
    return to_update(run_app(_worker_app, message, context), task="").SerializeToString(), context.state
