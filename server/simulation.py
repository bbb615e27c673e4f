"""A Grid that runs ClientApps inside this process, or over worker processes: no sockets, no Ray.

The figures do not depend on the number of workers: every fit uses one thread and a random stream of
its own, and updates are averaged in node order.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from flwr.app import Context, Message, RecordDict

from common import fleet_pb2 as pb
from common.records import TRAIN, identify
from common.wire import from_update, own_config, shared_parts, to_task
from server.grids import Answer, Node, NodeGrid, Tasks, num_bytes
from server.memory import Plain
from server.remembered import from_memory, to_memory
from server.workers import Work, Workers, how_many, replies


class Simulation(NodeGrid):
    """``num_nodes`` virtual nodes, each holding the shard of its number.

    Use as a context manager: it ends its workers.
    """

    def __init__(self, client_app: str, num_nodes: int, num_workers: int = 1, together: str = "") -> None:
        """Names are ``module:attribute``, so that workers can import them for themselves.

        Args:
            client_app: a ClientApp.
            num_nodes: how many virtual nodes.
            num_workers: processes that train them; 1: this one does.
            together: a module whose ``replies(messages, contexts)`` are those of the ClientApp, and whose
                ``how_many(message)`` says how many such messages it answers soonest at once; "": one after another.
        """
        identify(run_id=1, node_id=1)
        torch.set_num_threads(1)
        self._nodes = [Node(number + 1, f"sim-{number}", number) for number in range(num_nodes)]
        self._client_app = client_app
        self._remembered: dict[int, RecordDict] = {}  # what each node's ClientApp keeps from task to task
        self._num_workers, self._together = num_workers, together
        self._workers = Workers(client_app, num_workers, together) if num_workers > 1 else None
        self.listener: Callable[[str], None] = lambda _: None  # told each node's name when it has delivered

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(self, *_: object) -> None:
        if self._workers:
            self._workers.end()

    def nodes(self) -> list[Node]:
        """All virtual nodes: they never leave."""
        return list(self._nodes)

    def exchange(self, tasks: Tasks) -> list[Answer]:
        """Train the nodes here, a few at a time, or over the workers; nobody expires."""
        start = time.monotonic()
        answers = []
        for message, reply in zip(tasks.messages, self._replies(tasks.messages), strict=True):
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

    def _replies(self, messages: Sequence[Message]) -> Iterable[Message]:
        if self._workers:
            return self._workers_replies(self._workers, messages)
        return replies(self._client_app, self._together)(messages, [self._context(message) for message in messages])

    def _workers_replies(self, workers: Workers, messages: Sequence[Message]) -> Iterator[Message]:
        waiting = iter(messages)
        for done in workers.run(self._works(messages)):
            for update, state in done:
                message = next(waiting)
                self._remembered[message.metadata.dst_node_id] = state
                yield from_update(pb.Update.FromString(update), message)

    def _works(self, messages: Sequence[Message]) -> Iterator[Work]:
        """Some messages each: as many as are answered together, but no fewer works than there are workers."""
        shared: dict[tuple[int, int], bytes] = {}  # what messages share is packed once
        at_once = min(how_many(self._together, messages), -(-len(messages) // self._num_workers))
        for first in range(0, len(messages), at_once):
            some = messages[first : first + at_once]
            yield [(*self._parcels(message, shared), self._context(message)) for message in some]

    def _parcels(self, message: Message, shared: dict[tuple[int, int], bytes]) -> tuple[bytes, bytes]:
        parts = shared_parts(message)
        parcel = shared[parts] = shared.get(parts) or to_task(message).SerializeToString()
        return parcel, pb.Task(config=own_config(message)).SerializeToString()

    def _context(self, message: Message) -> Context:
        node_id = message.metadata.dst_node_id
        state = self._remembered.setdefault(node_id, RecordDict())
        return Context(run_id=1, node_id=node_id, node_config={"partition-id": node_id - 1}, state=state, run_config={})
