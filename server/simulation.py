"""A Grid that runs ClientApps inside this process, or over worker processes: no sockets, no Ray.

The figures do not depend on the number of workers: every fit uses one thread and a random stream of
its own, and updates are averaged in node order.
"""

import importlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict

from common import fleet_pb2 as pb
from common.errors import RunFailed
from common.records import answer as run_app
from common.records import identify
from common.wire import from_task, from_update, to_task, to_update
from server.grids import TRAIN, Answer, Node, NodeGrid, num_bytes

ClientApp = Callable[[Message, Context], Message]


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
        self._workers: ProcessPoolExecutor | None = None
        self.listener: Callable[[str], None] = lambda _: None  # told each node's name when it has delivered
        if num_workers > 1:
            self._workers = ProcessPoolExecutor(
                num_workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(client_app,)
            )

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(self, *_: object) -> None:
        if self._workers:
            self._workers.shutdown(wait=True, cancel_futures=True)

    def nodes(self) -> list[Node]:
        """All virtual nodes: they never leave."""
        return list(self._nodes)

    def exchange(self, round_name: str, messages: Sequence[Message], deadline_seconds: float) -> list[Answer]:
        """Train the nodes one after another, or as many at once as there are workers; nobody expires."""
        del round_name, deadline_seconds
        start = time.monotonic()
        answers = []
        for message, reply in zip(messages, self._replies(messages), strict=True):
            node_id = message.metadata.dst_node_id
            if message.metadata.message_type == TRAIN:
                self.listener(f"sim-{node_id - 1}")
            seconds = time.monotonic() - start
            answers.append(Answer(node_id, reply, "", seconds, num_bytes(message), num_bytes(reply)))
        return answers

    def _replies(self, messages: Sequence[Message]) -> Any:
        if self._workers is None:
            app = _load(self._client_app)
            return (run_app(app, message, _context(message.metadata.dst_node_id)) for message in messages)
        parcels: dict[int, bytes] = {}  # the content that messages share is packed once
        futures: list[Future[bytes]] = []
        for message in messages:
            parcel = parcels.get(id(message.content)) or to_task(message).SerializeToString()
            parcels[id(message.content)] = parcel
            futures.append(self._workers.submit(_work, parcel, message.metadata.dst_node_id))
        return (self._reply(message, future) for message, future in zip(messages, futures, strict=True))

    def _reply(self, message: Message, future: "Future[bytes]") -> Message:
        try:
            update = pb.Update.FromString(future.result())
        except BrokenProcessPool:
            raise RunFailed("a simulation worker died (out of memory?); try fewer with simulation.workers") from None
        return from_update(update, message)


def _load(client_app: str) -> ClientApp:
    module, _, attribute = client_app.partition(":")
    app: ClientApp = getattr(importlib.import_module(module), attribute)
    return app


def _context(node_id: int) -> Context:
    return Context(
        run_id=1, node_id=node_id, node_config={"partition-id": node_id - 1}, state=RecordDict(), run_config={}
    )


_worker_app: ClientApp | None = None


def _start_worker(client_app: str) -> None:
    """Import once, keep warm; Ctrl-C is the parent's business."""
    import signal

    global _worker_app
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _worker_app = _load(client_app)


def _work(parcel: bytes, node_id: int) -> bytes:
    assert _worker_app is not None
    identify(run_id=1, node_id=node_id)
    message = from_task(pb.Task.FromString(parcel), node_id)
    return to_update(run_app(_worker_app, message, _context(node_id)), task="").SerializeToString()
