"""A grid some of whose nodes are hostile: their updates are forged on the way back, and nothing else is changed.

Server and client know nothing of it: a run is that of ``server.conductor.conduct`` with another grid. Weights travel as
they are, without a codec.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from flwr.app import Message, RecordDict
from torch import Generator, Tensor

from benchmarks.hostile_nodes import Attack
from common.arrays import to_record, to_state
from common.contents import array_records, config_records
from common.models import State
from common.records import TRAIN
from server.grids import Answer, Node, NodeGrid, Tasks


class HostileGrid(NodeGrid):
    """The nodes of ``honest``, of which the first ``num_hostile`` are trained by ``hostile`` and then forged."""

    def __init__(self, honest: NodeGrid, hostile: NodeGrid, attack: Attack, num_hostile: int, seed: int) -> None:
        """``hostile`` has nodes of the same ids; it is ``honest`` itself, or trains on flipped labels."""
        self._honest, self._hostile, self._attack, self._seed = honest, hostile, attack, seed
        self._hostile_ids = {node.node_id for node in honest.nodes()[:num_hostile]}

    def nodes(self) -> list[Node]:
        """All of them: nobody sees who is hostile."""
        return self._honest.nodes()

    def exchange(self, tasks: Tasks) -> list[Answer]:
        """Let all train, then forge the updates of the hostile ones. Evaluations are honest."""
        is_training = bool(tasks.messages) and tasks.messages[0].metadata.message_type == TRAIN
        hostile = [m for m in tasks.messages if is_training and m.metadata.dst_node_id in self._hostile_ids]
        others = [m for m in tasks.messages if m not in hostile]
        honest_answers = list(self._honest.exchange(replace(tasks, messages=others)))
        hostile_answers = list(self._hostile.exchange(replace(tasks, messages=hostile)))
        if hostile and others:
            hostile_answers = self._forged(hostile, hostile_answers, honest_answers)
        return [*hostile_answers, *honest_answers]

    def _forged(self, tasks: Sequence[Message], answers: Sequence[Answer], honest: Sequence[Answer]) -> list[Answer]:
        model = to_state(array_records(tasks[0].content)["arrays"])
        number = config_records(tasks[0].content)["config"]["server-round"]
        assert isinstance(number, int)
        chance = Generator().manual_seed(int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]))
        changes = self._attack.forge(_changes(answers, model), _changes(honest, model), chance)
        return [_with(a, task, model, change) for a, task, change in zip(answers, tasks, changes, strict=True)]


def _changes(answers: Sequence[Answer], model: State) -> Tensor:
    """Updates less the model, float64 [num_answers, num_weights]."""
    return torch.stack([_flat(_arrays(answer)) - _flat(model) for answer in answers])


def _arrays(answer: Answer) -> State:
    assert answer.reply is not None
    return to_state(array_records(answer.reply.content)["arrays"])


def _flat(state: State) -> Tensor:
    return torch.cat([value.double().flatten() for value in state.values()])


def _with(answer: Answer, task: Message, model: State, change: Tensor) -> Answer:
    """``answer`` with the weights of ``model`` and ``change``; its figures are those of the node's own training."""
    assert answer.reply is not None
    parts = (_flat(model) + change).split([value.numel() for value in model.values()])
    forged = {
        name: part.reshape(value.shape).to(value.dtype)
        for (name, value), part in zip(model.items(), parts, strict=True)
    }
    content = RecordDict({"arrays": to_record(forged), "metrics": answer.reply.content["metrics"]})
    return replace(answer, reply=Message(content, reply_to=task))
