"""A Grid that runs ClientApps inside this process, or over worker processes: no sockets, no Ray.

The figures do not depend on the number of workers: every fit uses one thread and a random stream of
its own, and updates are averaged in node order.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from flwr.app import Context, Message, RecordDict

from common import fleet_pb2 as pb
from common.errors import Interrupted
from common.records import answer, identify
from common.wire import from_update, own_config, shared_parts, to_task
from server.grids import NOBODY, TRAIN, Answer, Node, NodeGrid, Reserve, num_bytes
from server.remembered import from_memory, to_memory
from server.storage.checkpoint import Plain
from server.workers import Work, Workers, load


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
        self._workers = Workers(client_app, num_workers) if num_workers > 1 else None
        self.listener: Callable[[str], None] = lambda _: None  # told each node's name when it has delivered

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._workers:
            self._workers.end(at_once=kind is not None)  # then nobody waits any more for the fits in hand

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

    def _replies(self, messages: Sequence[Message]) -> Iterable[Message]:
        if self._workers:
            return self._workers_replies(self._workers, messages)
        app = load(self._client_app)
        return (answer(app, message, self._context(message), let_through=(Interrupted,)) for message in messages)

    def _workers_replies(self, workers: Workers, messages: Sequence[Message]) -> Iterator[Message]:
        for message, (update, state) in zip(messages, workers.run(self._works(messages)), strict=True):
            self._remembered[message.metadata.dst_node_id] = state
            yield from_update(pb.Update.FromString(update), message)

    def _works(self, messages: Sequence[Message]) -> Iterator[Work]:
        parcels: dict[tuple[int, int], bytes] = {}  # what messages share is packed once
        for message in messages:
            parts = shared_parts(message)
            parcel = parcels[parts] = parcels.get(parts) or to_task(message).SerializeToString()
            yield parcel + pb.Task(config=own_config(message)).SerializeToString(), self._context(message)

    def _context(self, message: Message) -> Context:
        node_id = message.metadata.dst_node_id
        state = self._remembered.setdefault(node_id, RecordDict())
        return Context(run_id=1, node_id=node_id, node_config={"partition-id": node_id - 1}, state=state, run_config={})
