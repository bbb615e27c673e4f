"""Tests the global model on the nodes' own held-out examples: how it does where the data is, not on average only."""

import logging

from common.arrays import to_record
from common.errors import WireError
from common.models import State
from common.records import OWN_DATA, read_evaluation
from server import strategies
from server.broadcast import broadcast
from server.grids import Answer, Node, NodeGrid, Tasks
from server.plan import Plan
from server.report import NodeEvaluation
from server.updates.screening import Screen

_LOG = logging.getLogger(__name__)


def evaluate_on_nodes(grid: NodeGrid, plan: Plan, state: State, number: int) -> tuple[NodeEvaluation, ...]:
    """Ask all nodes that are here how good ``state`` is; those that do not answer well are left out, and logged.

    Who was set aside is not asked. A node is believed: the figures are reported, nothing is decided by them.
    """
    nodes = {node.node_id: node for node in grid.nodes() if plan.admits(node)}
    if not nodes:  # all are gone, or still at a late task
        return ()
    messages = strategies.evaluation_tasks(plan.strategy, number, to_record(state), plan.config, list(nodes))
    broadcast(state, plan.broadcast_codec, messages)
    answers = grid.exchange(Tasks(f"{plan.run}/{number}/evaluate", messages, plan.deadline_seconds))
    order = {node_id: place for place, node_id in enumerate(nodes)}
    found = []
    for answer in sorted(answers, key=lambda answer: order[answer.node_id]):
        try:
            found.append(_read(answer, nodes[answer.node_id], plan.screen))
        except WireError as error:
            _LOG.info("round %d: no evaluation from %s: %s", number, nodes[answer.node_id].name, error)
    return tuple(found)


def _read(answer: Answer, node: Node, screen: Screen) -> NodeEvaluation:
    if answer.reply is None:
        raise WireError(answer.reason)
    if answer.reply.has_error():
        raise WireError(f"{answer.reply.error.reason:.300}")
    return NodeEvaluation(node.name, *read_evaluation(answer.reply.content, _most(node, screen)))


def _most(node: Node, screen: Screen) -> int:
    """How many examples ``node`` can hold at most."""
    if 0 <= node.shard < len(screen.shard_sizes):
        return screen.shard_sizes[node.shard]
    if node.shard == OWN_DATA and node.own_examples:
        return min(node.own_examples, screen.max_own_examples)
    return max(screen.max_own_examples, *screen.shard_sizes)
