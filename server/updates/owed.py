"""What nodes owe a run after a round that went on without them, and its form in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.errors import RunDirectoryError
from common.models import State
from server.grids import Answer, Node
from server.link.roster import node_id
from server.memory import Plain, as_dict, as_state
from server.report import NodeReport


@dataclass(frozen=True)
class Owed:
    """A task that was issued and has no verdict yet."""

    task: str
    round: int  # 1.., in which it was issued
    node: Node
    reason: str  # why its round went on without it
    seconds: float  # how long its round waited
    budget: int | None = None  # the most examples that its update may claim; None = all of its epochs

    def answer(self, why: str = "", num_bytes: int = 0) -> Answer:
        """That nothing came of it in the end, under a node id of its own; ``num_bytes`` came for it."""
        return Answer(node_id(self.task), None, f"{self.reason}{why}", self.seconds, 0, num_bytes, late_for=self.round)

    def report(self) -> NodeReport:
        """That the run ended before anything came of it."""
        return NodeReport.expired(self.task, self.round, self.node.name, self.node.shard, self.reason, self.seconds)


def to_memory(owed: Iterable[Owed], models: Mapping[int, State]) -> dict[str, Plain]:
    """For a checkpoint: what is owed, and ``{round: the model that its tasks came with}``; empty if nothing is."""
    tasks: dict[str, Plain] = {
        each.task: {
            "round": each.round,
            "node": each.node.name,
            "shard": each.node.shard,
            "own_examples": each.node.own_examples,
            "reason": each.reason,
            "seconds": each.seconds,
            "budget": each.budget,
        }
        for each in owed
    }
    return {"tasks": tasks, "models": {str(number): dict(state) for number, state in models.items()}} if tasks else {}


def from_memory(memory: Mapping[str, Plain]) -> tuple[dict[str, Owed], dict[int, State]]:
    """What is owed, by task, and the models.

    Raises:
        RunDirectoryError: it is not what ``to_memory`` gave.
    """
    try:
        models = {int(number): as_state(state) for number, state in as_dict(memory.get("models", {})).items()}
        owed = {task: _owed(task, as_dict(said)) for task, said in as_dict(memory.get("tasks", {})).items()}
    except (KeyError, TypeError, ValueError):
        raise RunDirectoryError("the checkpoint's late work cannot be used; start a new run") from None
    if {each.round for each in owed.values()} != set(models):
        raise RunDirectoryError("the checkpoint's late work lacks a model or has one too many; start a new run")
    return owed, models


def _owed(task: str, said: dict[str, Plain]) -> Owed:
    name, shard, own_examples = said["node"], said["shard"], said["own_examples"]
    number, reason, seconds, budget = said["round"], said["reason"], said["seconds"], said["budget"]
    if not (isinstance(name, str) and isinstance(reason, str) and isinstance(seconds, float)):
        raise TypeError("a text or a time is of another type")
    if not (isinstance(shard, int) and isinstance(own_examples, int) and isinstance(number, int)):
        raise TypeError("a number is of another type")
    if budget is not None and not isinstance(budget, int):
        raise TypeError("a budget is of another type")
    return Owed(task, number, Node(node_id(name), name, shard, own_examples), reason, seconds, budget)
