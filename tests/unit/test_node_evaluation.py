"""Rule: the new model is tested where the data is; a node that answers badly is left out, and decides nothing."""

import gc
import math
import weakref
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from common.arrays import to_state
from common.errors import WireError
from common.layers import load
from common.models import weights_sha256
from common.records import evaluation_record, read_evaluation
from common.training import Evaluation
from server import strategies
from server.grids import Node
from server.plan import Plan
from server.report import NodeEvaluation, Round, metrics_record
from server.rounds import rounds
from server.updates.screening import Screen
from tests.scripted_grid import NODES, Content, Script, ScriptedGrid, everybody, toy_state, update_of

OWN = Node(9, "own", -1, own_examples=50)


def node(shard: int, accuracy: float, num_examples: int, loss: float = 1.0) -> Script:
    """Trains, and answers an evaluation with these figures."""

    def answer(message: Message) -> Content:
        if message.metadata.message_type == "train":
            return update_of(toy_state(1.0 + shard), shard, 50)
        return evaluation_record(loss, accuracy, num_examples)

    return answer


def one_round(grid: ScriptedGrid) -> Round:
    plan = Plan("run", strategies.build(load().strategy), Screen([100] * 4, 1000, 0.0), ConfigRecord({}), 60.0, 1, True)
    (done,) = rounds(grid, plan, toy_state(), [1], lambda _: everybody(grid.nodes()[:2]))
    return done


def test_all_nodes_that_are_here_test_the_average_after_the_cohort_has_trained() -> None:
    grid = ScriptedGrid({NODES[0]: node(0, 0.5, 10), NODES[1]: node(1, 0.9, 30), NODES[2]: node(2, 1.0, 10)})
    done = one_round(grid)
    assert grid.tape == ["run/1 within 60 s -> node-0, node-1", "run/1/evaluate within 60 s -> node-0, node-1, node-2"]
    tested = to_state(grid.tasks[-1].content.array_records["arrays"])
    assert torch.equal(tested["bias"], torch.full((10,), 1.5))  # (1 + 2) / 2
    assert done.evaluations[1] == NodeEvaluation("node-1", 1.0, 0.9, 30)
    assert done.node_accuracy_mean == pytest.approx(0.84)  # (5 + 27 + 10) / 50
    assert done.node_accuracy_worst == 0.5
    record = metrics_record(1, Evaluation(1.0, 0.5), done, best=False)
    assert (record["node_accuracy_mean"], record["node_accuracy_worst"]) == (pytest.approx(0.84), 0.5)


def error(message: Message) -> Content:
    return Message(Error(1, "out of memory"), reply_to=message) if message.metadata.message_type == "evaluate" else "-"


def test_a_node_that_does_not_answer_is_left_out() -> None:
    def silent(message: Message) -> Content:
        return "no update within 60 s"

    done = one_round(ScriptedGrid({NODES[0]: node(0, 0.5, 10), NODES[1]: silent, NODES[2]: error}))
    assert [each.node for each in done.evaluations] == ["node-0"]


def test_without_any_answer_there_is_no_figure() -> None:
    done = one_round(ScriptedGrid({NODES[0]: lambda _: "gone"}))
    assert math.isnan(done.node_accuracy_mean)
    assert math.isnan(done.node_accuracy_worst)
    assert metrics_record(1, Evaluation(1.0, 0.5), done, best=False)["node_accuracy_mean"] is None


@pytest.mark.parametrize(("who", "num_examples", "counts"), [(NODES[0], 100, True), (NODES[0], 101, False),
                                                             (OWN, 50, True), (OWN, 51, False)])  # fmt: skip
def test_a_node_cannot_weigh_more_than_it_holds(who: Node, num_examples: int, counts: bool) -> None:
    done = one_round(ScriptedGrid({who: node(who.shard, 0.0, num_examples)}))
    assert bool(done.evaluations) == counts


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accuracy": 1.5}, "the accuracy is 1.5, expected 0 to 1"),
        ({"accuracy": math.nan}, "the accuracy is nan, expected 0 to 1"),
        ({"accuracy": 1}, "the accuracy is 1, expected 0 to 1"),
        ({"loss": math.inf}, "the loss is inf, expected a finite number of at least 0"),
        ({"num-examples": 0}, "an evaluation on 0 examples, expected 1 to 100"),
        ({"num-examples": 5.0}, "an evaluation on 5.0 examples, expected 1 to 100"),
        ({"extra": 1}, "an evaluation on 5 examples, expected 1 to 100"),
    ],
)
def test_figures_are_checked(changes: dict[str, Any], reason: str) -> None:
    record = MetricRecord({"loss": 0.5, "accuracy": 0.5, "num-examples": 5} | changes)
    with pytest.raises(WireError) as refused:
        read_evaluation(RecordDict({"metrics": record}), 100)
    assert str(refused.value) == reason


def test_with_nobody_to_ask_no_node_is_tested_and_the_round_ends() -> None:
    class Emptied(ScriptedGrid):
        """Its nodes are gone once they have trained."""

        def nodes(self) -> list[Node]:
            return [] if self.tasks else super().nodes()

    grid = Emptied({NODES[0]: node(0, 0.5, 10)})
    assert one_round(grid).evaluations == ()
    assert grid.tape == ["run/1 within 60 s -> "]  # and no evaluation


def test_updates_are_freed_before_nodes_are_asked_to_test_the_model() -> None:
    sent: list[weakref.ref[Any]] = []
    freed: list[bool] = []

    def told(message: Message) -> Content:
        content = node(0, 0.5, 10)(message)
        if isinstance(content, RecordDict) and "arrays" in content:
            sent.append(weakref.ref(content["arrays"].vector))  # type: ignore[union-attr]  # of these
        else:
            gc.collect()
            freed.append(sent[0]() is None)
        return content

    done = one_round(ScriptedGrid({NODES[0]: told}))
    assert freed == [True]
    assert done.reports[0].sha256 == weights_sha256(toy_state(1.0))
