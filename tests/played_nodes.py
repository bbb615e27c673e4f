"""Two nodes that a test plays itself, message by message, and exchanges that wait for them meanwhile."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from flwr.app import Message, RecordDict

from common import fleet_pb2 as pb
from common.wire import to_update
from server.fleet import Fleet
from server.grids import Answer, Node, Tasks
from server.link.roster import node_id
from tests.link_twins import BareNode, hello
from tests.scripted_grid import task_message, toy_state, update_of

A, B = Node(node_id("a"), "a", 0), Node(node_id("b"), "b", 1)


@contextmanager
def joined(fleet: Fleet, name: str, shard: int) -> Iterator[BareNode]:
    with BareNode(fleet.port) as node:
        node.say(pb.FromNode(hello=hello(name, shard=shard)))
        assert node.hear("welcome").shard == shard
        yield node


def exchange(
    aside: ThreadPoolExecutor, fleet: Fleet, nodes: Sequence[Node], seconds: float = 60.0
) -> Future[list[Answer]]:
    """Its answers are in the order of ``nodes``, not in that of their coming."""
    order = [node.node_id for node in nodes]
    coming = fleet.exchange(Tasks("run/1", tasks_for(nodes), seconds))
    return aside.submit(lambda: sorted(coming, key=lambda answer: order.index(answer.node_id)))


def tasks_for(nodes: Sequence[Node]) -> list[Message]:
    shared = task_message(nodes[0], toy_state(1.0)).content
    return [Message(shared, node.node_id, "train") for node in nodes]


def update(task: str, value: float, shard: int = 0) -> pb.FromNode:
    reply = Message(update_of(toy_state(value), shard), reply_to=task_message())
    return pb.FromNode(update=to_update(reply, task))


def bias(answer: Answer) -> float:
    assert answer.reply is not None
    return bias_of(answer.reply.content)


def bias_of(content: RecordDict) -> float:
    return float(content.array_records["arrays"]["bias"].numpy()[0])
