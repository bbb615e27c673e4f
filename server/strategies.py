"""Strategies by name: how a round's updates become the next global model."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from common.arrays import to_state
from common.errors import SettingsError
from common.models import State
from common.settings import Settings, StrategySettings
from server import averaging, strategy_memory
from server.updates.screening import Screened

# Sampling is the round loop's own: strategies take the cohort they are shown.
_COHORT = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
    "weighted_by_key": "num-examples",
}
# Flower's strategies, and which of the settings each takes under which name.
_STRATEGIES: dict[str, tuple[type[Strategy], dict[str, str]]] = {
    "fedavg": (flower.FedAvg, {}),
    "fedprox": (flower.FedProx, {"proximal_mu": "proximal_mu"}),
    "fedavgm": (
        flower.FedAvgM,
        {"server_learning_rate": "server_learning_rate", "server_momentum": "server_momentum"},
    ),
    "fedadam": (flower.FedAdam, {"eta": "eta", "beta_1": "beta1", "beta_2": "beta2", "tau": "tau"}),
    "fedyogi": (flower.FedYogi, {"eta": "eta", "beta_1": "beta1", "beta_2": "beta2", "tau": "tau"}),
    "fedadagrad": (flower.FedAdagrad, {"eta": "eta", "tau": "tau"}),
    "fedmedian": (flower.FedMedian, {}),
    "fedtrimmedavg": (flower.FedTrimmedAvg, {"beta": "trimmed_fraction"}),
    "krum": (flower.Krum, {"num_malicious_nodes": "num_malicious_nodes"}),
    "multikrum": (
        flower.MultiKrum,
        {"num_malicious_nodes": "num_malicious_nodes", "num_nodes_to_select": "num_nodes_to_select"},
    ),
    "bulyan": (flower.Bulyan, {"num_malicious_nodes": "num_malicious_nodes"}),
    "qfedavg": (flower.QFedAvg, {"client_learning_rate": "client_learning_rate", "q": "q"}),
}
_FIXED: dict[str, dict[str, Any]] = {"qfedavg": {"train_loss_key": "train-loss"}}


def build(settings: StrategySettings) -> Strategy:
    """Flower's strategy of that name, with its parameters."""
    _leave_imports_alone()
    kind, parameters = _STRATEGIES[settings.name]
    chosen = {name: getattr(settings, key) for name, key in parameters.items()}
    return kind(**_COHORT, **chosen, **_FIXED.get(settings.name, {}))


def num_needed(settings: StrategySettings) -> int:
    """The fewest updates that the strategy can do its work on."""
    return _num_needed(settings.name, settings.num_malicious_nodes, settings.num_nodes_to_select)


def withstands(strategy: Strategy, num_updates: int, num_out: int) -> int | None:
    """How many malicious nodes among the senders of so many updates ``strategy`` can withstand.

    As many as it was told of, or, where the updates are too few for that, less by up to ``num_out``: nodes that were
    found out, whose updates are not among these. None: the updates are too few, or no such number was told.
    """
    told = getattr(strategy, "num_malicious_nodes", None)
    if told is None:
        return None
    name = next(name for name, (kind, _) in _STRATEGIES.items() if type(strategy) is kind)
    to_select = getattr(strategy, "num_nodes_to_select", 1)
    possible = range(told, max(0, told - num_out) - 1, -1)
    return next((f for f in possible if num_updates >= _num_needed(name, f, to_select)), None)


def check(settings: Settings) -> None:
    """Refuse a strategy that needs more nodes in a round than the run waits for.

    Raises:
        SettingsError: it does.
    """
    federation, needed = settings.federation, num_needed(settings.strategy)
    nodes = settings.simulation.nodes or federation.clients
    cohort = max(1, round(federation.fraction * nodes))
    if cohort < needed:
        flag = "--simulate" if settings.simulation.nodes else "--clients"
        raise SettingsError(
            f"strategy.name {settings.strategy.name} needs at least {needed} nodes in a round, and {flag} {nodes} times"
            f" federation.fraction {federation.fraction:g} makes {cohort}; ask for more with {flag}, or lower"
            " strategy.num_malicious_nodes"
        )


def tasks(
    strategy: Strategy, round_number: int, arrays: ArrayRecord, config: ConfigRecord, cohort: Sequence[int]
) -> list[Message]:
    """What ``strategy`` wants each node of ``cohort`` to do in this round."""
    return list(strategy.configure_train(round_number, arrays, config, _Cohort(cohort)))


def evaluation_tasks(
    strategy: Strategy, round_number: int, arrays: ArrayRecord, config: ConfigRecord, nodes: Sequence[int]
) -> list[Message]:
    """How ``strategy`` asks ``nodes`` to test the global model on what they hold out."""
    return list(strategy.configure_evaluate(round_number, arrays, config, _Cohort(nodes)))


def average(
    strategy: Strategy,
    round_number: int,
    updates: Sequence[Screened],
    replies: dict[int, Message],
    num_malicious: int | None = None,
) -> State | None:
    """The next global model, from at least as many screened updates as the strategy needs.

    Args:
        strategy: how to average.
        round_number: 1..
        updates: in node order, so that sums do not depend on who was first.
        replies: ``{node_id: reply}``, for strategies of Flower's, which read them: their content is replaced by what
            the screen let through.
        num_malicious: how many malicious nodes to withstand this time; None = as many as the strategy was told of.

    Returns:
        float32 tensors; None if what comes out is not finite.
    """
    names = [name for name, _ in updates[0].arrays.form]
    before = strategy_memory.memory(strategy)
    with np.errstate(over="ignore", invalid="ignore"), _told(strategy, num_malicious):  # what comes of it: see below
        if type(strategy) in averaging.PLAIN:
            arrays: ArrayRecord | None = averaging.mean([(update.arrays, update.counts) for update in updates])
        else:
            for update in updates:
                replies[update.node.node_id].content = update.content
            arrays, _ = strategy.aggregate_train(round_number, [replies[update.node.node_id] for update in updates])
    assert arrays is not None, "a strategy given usable updates must average them"
    # Some of Flower's strategies mix in a NumPy float64: their arrays come out twice as wide.
    averaged = to_state(arrays)
    state = {name: averaged[name].to(torch.float32) for name in names}
    if all(np.isfinite(value.numpy()).all() for value in state.values()):
        return state
    strategy_memory.forget(strategy)
    strategy_memory.restore(strategy, before, state)
    return None


def _num_needed(name: str, num_malicious: int, num_to_select: int) -> int:
    """2f + 3 updates for Krum and Multi-Krum (Blanchard et al. 2017), 4f + 3 for Bulyan (El Mhamdi et al. 2018)."""
    match name:
        case "krum":
            return 2 * num_malicious + 3
        case "multikrum":
            return max(2 * num_malicious + 3, num_to_select + num_malicious)
        case "bulyan":
            return 4 * num_malicious + 3
    return 1


@contextmanager
def _told(strategy: Strategy, num_malicious: int | None) -> Iterator[None]:
    """For one average, another number of malicious nodes."""
    if num_malicious is None:
        yield
        return
    former = strategy.num_malicious_nodes  # type: ignore[attr-defined]  # of those of Flower's that have it
    strategy.num_malicious_nodes = num_malicious  # type: ignore[attr-defined]
    try:
        yield
    finally:
        strategy.num_malicious_nodes = former  # type: ignore[attr-defined]


@cache
def _leave_imports_alone() -> None:
    """Some of Flower's strategies call ``gc.collect`` for every array: 0.1 s each if it looks through all of torch.

    Once in a process: what is frozen and thawed counts as old, and old garbage is hardly ever collected.
    """
    gc.freeze()


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
