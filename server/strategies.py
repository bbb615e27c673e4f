"""Strategies by name: how a round's updates become the next global model."""

from collections.abc import Iterable, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from common.settings import StrategySettings
from server.screening import Screened

# Sampling and evaluation are the round loop's own: strategies take the cohort they are shown.
_COHORT = {"fraction_train": 1.0, "min_train_nodes": 1, "min_available_nodes": 1, "weighted_by_key": "num-examples"}


def build(settings: StrategySettings) -> Strategy:
    """Flower's strategy of that name."""
    return {"fedavg": FedAvg}[settings.name](**_COHORT)  # type: ignore[arg-type]  # mixed keyword types


def tasks(
    strategy: Strategy, round_number: int, arrays: ArrayRecord, config: ConfigRecord, cohort: Sequence[int]
) -> list[Message]:
    """What ``strategy`` wants each node of ``cohort`` to do in this round."""
    return list(strategy.configure_train(round_number, arrays, config, _Cohort(cohort)))


def average(
    strategy: Strategy, round_number: int, updates: Sequence[Screened], replies: dict[int, Message]
) -> ArrayRecord:
    """The next global model, from at least one screened update.

    Args:
        strategy: how to average.
        round_number: 1..
        updates: in node order, so that sums do not depend on who was first.
        replies: ``{node_id: reply}``, whose content is replaced by what the screen let through.
    """
    for update in updates:
        replies[update.node.node_id].content = update.content
    arrays, _ = strategy.aggregate_train(round_number, [replies[update.node.node_id] for update in updates])
    assert arrays is not None, "a strategy given usable updates must average them"
    return arrays


class _Cohort(Grid):
    """The Grid that a strategy samples from: just the nodes of this round, no waiting."""

    def __init__(self, node_ids: Sequence[int]) -> None:
        self._node_ids = list(node_ids)

    def get_node_ids(self) -> Iterable[int]:
        return self._node_ids

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def _only_samples(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("strategies choose nodes here; the round loop sends")

    set_run = run = push_messages = pull_messages = send_and_receive = _only_samples  # type: ignore[assignment]
