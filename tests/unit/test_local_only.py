"""Rule: alone, every node goes on from its own weights, and nothing of one reaches another."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Message

from common.arrays import to_state
from common.errors import RunDirectoryError, UsageError
from common.layers import load
from common.models import State
from common.training import Evaluation
from server import local_only, strategies
from server.baselines import check_baseline
from server.gathering import Cohort
from server.local_only import LocalOnly, most_models
from server.memory import Plain
from server.plan import Plan
from server.report import LocalModel, Round, metrics_record
from server.updates.screening import Screen
from tests.scripted_grid import NODES, Content, Script, ScriptedGrid, everybody, toy_state, update_of

PLAN = Plan("run", strategies.build(load().strategy), Screen([100] * 4, 1000, 2.0), ConfigRecord({"x": 1}), 60.0)


def value_of(state: State) -> float:
    return float(state["bias"][0])


def judge(state: State) -> Evaluation:
    """A model whose weights are 3 has the accuracy 0.3."""
    return Evaluation(loss=1.0, accuracy=value_of(state) / 10)


def adds(amount: float, shard: int) -> Script:
    """A node that adds ``amount`` to the weights it is sent."""

    def train(message: Message) -> Content:
        before = value_of(to_state(message.content.array_records["arrays"]))
        return update_of(toy_state(before + amount), shard, num_examples=100 - shard, train_loss=amount)

    return train


def sent(grid: ScriptedGrid) -> list[tuple[int, float, int]]:
    """(node, weights, round) of every task so far."""
    return [
        (
            task.metadata.dst_node_id,
            value_of(to_state(task.content.array_records["arrays"])),
            task.content.config_records["config"]["server-round"],  # type: ignore[misc]
        )
        for task in grid.tasks
    ]


def train(
    grid: ScriptedGrid,
    numbers: Sequence[int] = (1, 2),
    memory: dict[str, Plain] | None = None,
    cohort: Callable[[int], Cohort] | None = None,
    plan: Plan = PLAN,
) -> tuple[list[Round], dict[str, Plain]]:
    alone = LocalOnly(grid, plan, toy_state(), judge)
    return list(alone.rounds(memory or {}, numbers, cohort or (lambda _: everybody(grid.nodes())))), alone.memory()


def test_every_node_goes_on_from_its_own_weights() -> None:
    """Averaged, both would be sent 1.5 in round 2. The last is 30 times as far away as the others: nobody minds."""
    grid = ScriptedGrid({NODES[2]: adds(30.0, 2), NODES[1]: adds(2.0, 1), NODES[0]: adds(1.0, 0)})
    done, _ = train(grid)
    assert sent(grid) == [(1, 0.0, 1), (2, 0.0, 1), (3, 0.0, 1), (1, 1.0, 2), (2, 2.0, 2), (3, 30.0, 2)]
    assert grid.tape == [f"run/{number} within 60 s -> node-0, node-1, node-2" for number in (1, 2)]
    assert [report.verdict for report in done[1].reports] == ["accepted"] * 3


def test_a_round_shows_the_best_nodes_model_and_how_all_are() -> None:
    [done], _ = train(ScriptedGrid({NODES[0]: adds(1.0, 0), NODES[1]: adds(4.0, 1)}), [1])
    assert value_of(done.state) == 4.0
    assert done.local_models == (LocalModel("node-0", 0.1, 1.0), LocalModel("node-1", 0.4, 1.0))
    assert done.local_accuracies == {"mean": 0.25, "best": 0.4, "worst": 0.1}
    assert (done.num_nodes, done.averaged, done.share_of_data) == (2, True, 199 / 400)
    assert done.train_loss == pytest.approx((1.0 * 100 + 4.0 * 99) / 199)
    assert (done.bytes_down, done.bytes_up, done.fit_seconds) == (2000, 200, 0.25)


def test_the_metrics_have_the_figures_of_the_nodes() -> None:
    [done], _ = train(ScriptedGrid({NODES[0]: adds(1.0, 0), NODES[1]: adds(4.0, 1)}), [1])
    record = metrics_record(1, judge(done.state), done, True)
    local = {key: value for key, value in record.items() if key.startswith("local")}
    assert local == {"local_accuracy_mean": 0.25, "local_accuracy_best": 0.4, "local_accuracy_worst": 0.1}
    assert record["test_accuracy"] == 0.4


def test_of_equally_good_models_the_first_nodes_is_shown() -> None:
    [done], _ = train(ScriptedGrid({NODES[1]: adds(2.0, 1), NODES[0]: adds(2.0, 0)}), [1])
    assert done.local_accuracies == {"mean": 0.2, "best": 0.2, "worst": 0.2}
    assert value_of(done.state) == 2.0


def test_a_node_that_does_not_deliver_keeps_its_model() -> None:
    answers: dict[int, Content] = {2: "its link broke", 3: update_of(toy_state(float("nan")), 0)}

    def sometimes(message: Message) -> Content:
        number = message.content.config_records["config"]["server-round"]
        return answers.get(number) or adds(1.0, 0)(message)  # type: ignore[arg-type]

    grid = ScriptedGrid({NODES[0]: sometimes})
    done, _ = train(grid, [1, 2, 3, 4])
    assert [value_of(round_.state) for round_ in done] == [1.0, 1.0, 1.0, 2.0]
    assert [round_.reports[0].verdict for round_ in done] == ["accepted", "expired", "rejected", "accepted"]
    assert [round_.averaged for round_ in done] == [True, False, False, True]
    assert done[2].reports[0].reason == "weight holds values that are not finite"


def test_nodes_out_of_the_cohort_count_with_the_model_they_have() -> None:
    grid = ScriptedGrid({NODES[0]: adds(1.0, 0), NODES[1]: adds(4.0, 1)})
    done, _ = train(grid, [1, 2, 3], cohort=lambda number: everybody([NODES[(number - 1) % 2]]))
    assert [round(round_.local_accuracies["mean"], 9) for round_ in done] == [0.1, 0.25, 0.3]  # of 1; 1 and 4; 2 and 4
    assert [round_.local_accuracies["worst"] for round_ in done] == [0.1, 0.1, 0.2]


def test_only_models_that_changed_are_tested_anew() -> None:
    tested: list[float] = []

    def evaluate(state: State) -> Evaluation:
        tested.append(value_of(state))
        return judge(state)

    grid = ScriptedGrid({NODES[0]: adds(1.0, 0), NODES[1]: adds(4.0, 1)})
    alone = LocalOnly(grid, PLAN, toy_state(), evaluate)
    list(alone.rounds({}, [1, 2], lambda number: everybody(grid.nodes()[: 3 - number])))
    assert tested == [1.0, 4.0, 2.0]


def test_without_a_single_update_the_model_is_the_untrained_one() -> None:
    [done], memory = train(ScriptedGrid({NODES[0]: lambda _: "it left"}), [1])
    assert (done.averaged, done.local_models, done.local_accuracies) == (False, (), {})
    assert value_of(done.state) == 0.0
    assert memory == {"models": {}}


def test_taken_up_after_a_round_every_node_goes_on_with_its_own_model() -> None:
    def nodes() -> ScriptedGrid:
        return ScriptedGrid({NODES[0]: adds(1.0, 0), NODES[1]: adds(4.0, 1)})

    straight, _ = train(nodes(), [1, 2, 3])
    _, memory = train(nodes(), [1])
    rest, _ = train(nodes(), [2, 3], memory)
    assert [round_.local_models for round_ in rest] == [round_.local_models for round_ in straight[1:]]
    assert [value_of(round_.state) for round_ in rest] == [8.0, 12.0]


def test_what_is_remembered_does_not_change_later() -> None:
    grid = ScriptedGrid({NODES[0]: adds(1.0, 0)})
    alone = LocalOnly(grid, PLAN, toy_state(), judge)
    rounds = alone.rounds({}, [1, 2], lambda _: everybody(grid.nodes()))
    next(rounds)
    memory: dict[str, Any] = alone.memory()
    next(rounds)
    assert value_of(memory["models"]["node-0"]) == 1.0


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"models": None},
        {"models": {"node-0": None}},
        {"models": {"node-0": {"weight": torch.zeros(2, 3)}}},
        {"models": {"node-0": {"weight": torch.zeros(3, 2), "bias": torch.zeros(10)}}},
        {"models": {"node-0": {"weight": torch.zeros(2, 3), "bias": torch.zeros(10, dtype=torch.int64)}}},
    ],
)
def test_a_checkpoint_of_something_else_is_not_taken_up(memory: dict[str, Plain]) -> None:
    with pytest.raises(RunDirectoryError, match="holds no models of this run's nodes; start a new run"):
        train(ScriptedGrid({NODES[0]: adds(1.0, 0)}), [2], memory)


def test_new_nodes_beyond_the_room_of_a_checkpoint_get_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_only, "MAX_BYTES", 2 * 2 * 16 * 4)  # two models of 16 weights, in half of it
    grid = ScriptedGrid({NODES[number]: adds(1.0, number) for number in range(3)})
    come = {1: [NODES[1]], 2: list(NODES[:3]), 3: list(NODES[:3])}
    told: list[tuple[int, int]] = []
    plan = replace(PLAN, say_begun=lambda number, num_nodes: told.append((number, num_nodes)))
    train(grid, [1, 2, 3], cohort=lambda number: everybody(come[number]), plan=plan)
    assert [(node, number) for node, _, number in sent(grid)] == [(2, 1), (1, 2), (2, 2), (1, 3), (2, 3)]
    assert told == [(1, 1), (2, 2), (3, 2)]  # and nobody is told that three were asked


def test_more_virtual_nodes_than_there_is_room_for_are_refused() -> None:
    most = 2**29 // (61_706 * 4)
    assert most_models({"all": torch.zeros(61_706)}) == most == 2175
    check_baseline(load(("the test", {"run.baseline": "local-only", "simulation.nodes": most})))
    said = (
        "--local-only keeps the model of every node in its checkpoints, at most 2175 of lenet5,"
        " got --simulate 2176; simulate fewer nodes"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        check_baseline(load(("the test", {"run.baseline": "local-only", "simulation.nodes": most + 1})))
