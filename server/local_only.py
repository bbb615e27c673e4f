"""The baseline of nodes that never share: each trains on from its own last weights, nothing is averaged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from flwr.app import ConfigRecord, Message, RecordDict

from common import models
from common.arrays import to_record, to_state
from common.errors import RunDirectoryError, UsageError
from common.models import State, own_copy
from common.records import TRAIN
from common.settings import Settings
from common.training import Evaluation
from server.broadcast import broadcast
from server.concluding import concluded
from server.gathering import Cohort
from server.grids import Answer, Node, NodeGrid, Tasks
from server.incoming import Origin
from server.memory import Plain, as_dict, as_state
from server.plan import Plan
from server.report import LocalModel, Round
from server.storage.checkpoint import MAX_BYTES
from server.updates.screening import Rejected, Screened

_LOG = logging.getLogger(__name__)

Evaluate = Callable[[State], Evaluation]


class LocalOnly:
    """A model for every node, by the node's name: one that comes back goes on with its own."""

    def __init__(self, grid: NodeGrid, plan: Plan, start: State, evaluate: Evaluate) -> None:
        """``start`` is what every node begins with, ``evaluate`` tells how good a model is on the test set."""
        self._grid, self._plan, self._start, self._evaluate = grid, plan, start, evaluate
        self._models: dict[str, State] = {}
        self._evaluations: dict[str, Evaluation] = {}

    def rounds(
        self, memory: Mapping[str, Plain], numbers: Sequence[int], cohort: Callable[[int], Cohort]
    ) -> Iterator[Round]:
        """Let the cohort of each round train on, yielding the round when it is done; its model is the best node's.

        Args:
            memory: what ``memory`` gave after the round before; not looked at before round 1.
            numbers: consecutive round numbers, from 1.
            cohort: waits for and chooses the nodes of a round, given its number.

        Raises:
            RunDirectoryError: ``memory`` is not that of a run with these settings.
        """
        if numbers and numbers[0] > 1:
            self._models = _checked(memory, self._start)
        for number in numbers:
            done = self._round(number, self._admitted(cohort(number).nodes))
            yield done
            done.let_go()

    def memory(self) -> dict[str, Plain]:
        """What the next round needs: every node's model."""
        return {"models": {name: dict(state) for name, state in self._models.items()}}

    def _admitted(self, cohort: Sequence[Node]) -> list[Node]:
        """The cohort less new nodes for whose models a checkpoint has no room."""
        room = most_models(self._start) - len(self._models)
        admitted: list[Node] = []
        for node in sorted(cohort, key=lambda node: node.order):
            if node.name not in self._models:
                room -= 1
            if node.name in self._models or room >= 0:
                admitted.append(node)
            else:
                _LOG.warning("%s gets no task: a checkpoint holds no more models", node.name)
        return admitted

    def _round(self, number: int, cohort: Sequence[Node]) -> Round:
        plan, nodes = self._plan, {node.node_id: node for node in cohort}
        messages = [self._task(number, node) for node in cohort]
        plan.begin(number, cohort)
        start = time.monotonic()
        answers = list(self._grid.exchange(Tasks(f"{plan.run}/{number}", messages, plan.deadline_seconds)))
        exchanged = time.monotonic()
        updates, rejected = self._screened(answers, nodes)
        for update in updates:
            self._models[update.node.name] = own_copy(to_state(update.arrays))
            self._evaluations.pop(update.node.name, None)
        screened = time.monotonic()
        local_models, tested = self._compared(), time.monotonic() - screened
        best = max(local_models, key=lambda model: (model.accuracy, -model.loss), default=None)
        state = self._models[best.node] if best else self._start
        done = concluded(plan, number, state, (start, exchanged, screened), nodes, answers, updates, rejected)
        return replace(done, local_models=local_models, phases=replace(done.phases, evaluate=tested))

    def _task(self, number: int, node: Node) -> Message:
        config = ConfigRecord({**self._plan.config, "server-round": number})
        content = RecordDict({"arrays": to_record(self._model_of(node)), "config": config})
        task = Message(content, node.node_id, TRAIN)
        broadcast(self._model_of(node), self._plan.broadcast_codec, [task])
        return task

    def _model_of(self, node: Node) -> State:
        return self._models.get(node.name, self._start)

    def _screened(self, answers: Sequence[Answer], nodes: Mapping[int, Node]) -> tuple[list[Screened], dict[int, str]]:
        """Updates that are sound, in node order, and ``{node_id: reason}`` of the others.

        Updates are not held against each other: an odd one harms nobody but its own node.
        """
        updates: list[Screened] = []
        rejected: dict[int, str] = {}
        for answer in sorted(answers, key=lambda answer: nodes[answer.node_id].order):
            if answer.reply is None:
                continue
            node = nodes[answer.node_id]
            model = self._model_of(node)
            origin = Origin.of(model, broadcast(model, self._plan.broadcast_codec, ()))
            try:
                updates.append(self._plan.screen.check(answer.reply, node, origin))
            except Rejected as reason:
                rejected[node.node_id] = reason.reason
        return updates, rejected

    def _compared(self) -> tuple[LocalModel, ...]:
        """How good every node's model is; only those that changed are tested anew."""
        for name, state in self._models.items():
            if name not in self._evaluations:
                self._evaluations[name] = self._evaluate(state)
        found = self._evaluations
        return tuple(LocalModel(name, found[name].accuracy, found[name].loss) for name in self._models)


def most_models(state: State) -> int:
    """How many models like ``state`` a checkpoint has room for, beside the best and the last one."""
    return MAX_BYTES // 2 // sum(value.numel() * value.element_size() for value in state.values())


def check_room(settings: Settings) -> None:
    """Refuse more virtual nodes than there is room for.

    Raises:
        UsageError: there are.
    """
    most = most_models(models.build(settings.model.name).state_dict())
    if settings.simulation.nodes > most:
        raise UsageError(
            f"--local-only keeps the model of every node in its checkpoints, at most {most} of {settings.model.name},"
            f" got --simulate {settings.simulation.nodes}; simulate fewer nodes"
        )


def _checked(memory: Mapping[str, Plain], start: State) -> dict[str, State]:
    """The models in ``memory``, each of the names, shapes and dtypes of ``start``."""
    try:
        return {name: as_state(state, like=start) for name, state in as_dict(memory.get("models")).items()}
    except TypeError:
        raise RunDirectoryError(
            "the checkpoint's strategy_state holds no models of this run's nodes; start a new run"
        ) from None
