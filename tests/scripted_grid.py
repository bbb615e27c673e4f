"""A grid whose nodes answer by a script, in a given order, and a toy model whose averages are done in the head."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from flwr.app import ConfigRecord, Message, RecordDict

from common.arrays import to_record
from common.models import State
from common.records import Update, identify, update_record
from server.gathering import Cohort
from server.grids import ENOUGH, Answer, Node, NodeGrid, Tasks, Verdict

identify(run_id=1, node_id=1)

Content = RecordDict | Message | str  # what a reply holds, a whole reply, or why there is none
Script = Callable[[Message], Content]  # one node's answer to a task

NODES = tuple(Node(number + 1, f"node-{number}", number) for number in range(4))


def toy_state(value: float = 0.0) -> State:
    """A toy model, all of whose 16 weights are ``value``."""
    return {"weight": torch.full((2, 3), value), "bias": torch.full((10,), value)}


def update_of(state: State, shard: int, num_examples: int = 100, train_loss: float = 0.5) -> RecordDict:
    """The content of an honest reply."""
    return update_record(Update(state, num_examples, train_loss, shard, fit_seconds=0.25, threads=1))


def everybody(nodes: Sequence[Node]) -> Cohort:
    """A cohort of all of them, each of whose answers is waited for."""
    return Cohort(nodes, len(nodes))


class ScriptedGrid(NodeGrid):
    """Nodes that answer by ``scripts``, arriving in the order of ``scripts``, and a tape of all that was asked.

    Each answer says that it took 2 s, 1000 bytes down and 100 bytes up.
    """

    def __init__(self, scripts: Mapping[Node, Script]) -> None:
        self.scripts = dict(scripts)
        self.tape: list[str] = []
        self.tasks: list[Message] = []

    def nodes(self) -> list[Node]:
        return sorted(self.scripts, key=lambda node: node.order)

    def exchange(self, tasks: Tasks) -> list[Answer]:
        asked = {message.metadata.dst_node_id: message for message in tasks.messages}
        self.tasks += tasks.messages
        names = [node.name for node in self.nodes() if node.node_id in asked]
        self.tape.append(f"{tasks.round_name} within {tasks.deadline_seconds:g} s -> {', '.join(names)}")
        by_id, standing_by = {node.node_id: node for node in self.scripts}, list(tasks.reserve.messages)
        waiting = [asked[node_id] for node_id in by_id if node_id in asked]
        answers: list[Answer] = []
        while waiting:
            message = waiting.pop(0)
            node = by_id[message.metadata.dst_node_id]
            is_enough = 0 < tasks.num_enough <= sum(a.reply is not None and not a.reply.has_error() for a in answers)
            answers.append(_answer(node, message, (lambda _: ENOUGH) if is_enough else self.scripts[node]))
            if answers[-1].reply is None and standing_by and not is_enough:
                waiting.append(standing_by.pop(0))
                tasks.reserve.before(waiting[-1].metadata.dst_node_id)
                self.tape.append(f"{tasks.round_name} -> {by_id[waiting[-1].metadata.dst_node_id].name} instead")
        return answers

    def wait_for_change(self, seconds: float) -> None:
        self.tape.append(f"wait {seconds:g} s")

    def settle(self, verdicts: Iterable[Verdict]) -> None:
        self.tape += [f"{verdict.task} {verdict.verdict}" for verdict in verdicts]


def _answer(node: Node, message: Message, script: Script) -> Answer:
    content = script(message)
    if isinstance(content, str):
        return Answer(node.node_id, None, content, seconds=2.0, bytes_down=1000, bytes_up=0)
    reply = content if isinstance(content, Message) else Message(content, reply_to=message)
    return Answer(node.node_id, reply, "", seconds=2.0, bytes_down=1000, bytes_up=100)


def task_message(node: Node = NODES[0], state: State | None = None) -> Message:
    """A task for ``node``, whose config says nothing."""
    content = RecordDict({"arrays": to_record(state or toy_state()), "config": ConfigRecord({})})
    return Message(content, node.node_id, "train")
