"""Rule: every round asks its cohort, screens, averages and reports every task; bad news is a verdict, not an end."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Message

from common.layers import load
from common.models import State, weights_sha256
from common.records import error_reply
from server import strategies
from server.gathering import Cohort
from server.grids import UNKNOWN_SHARD, Node
from server.plan import Plan
from server.report import NodeReport, Round
from server.rounds import rounds
from server.updates.screening import Screen
from tests.scripted_grid import NODES, Content, Script, ScriptedGrid, everybody, toy_state, update_of

OWN = Node(9, "own", -1, own_examples=50)


def plan(shard_sizes: tuple[int, ...] = (100, 300, 500, 100), name: str = "fedavg") -> Plan:
    strategy = strategies.build(load(("the test", {"strategy.name": name})).strategy)
    return Plan("run", strategy, Screen(shard_sizes, 1000, 0.0), ConfigRecord({"x": 1}), deadline_seconds=60.0)


def one_round(grid: ScriptedGrid, state: State | None = None) -> Round:
    return next(rounds(grid, plan(), state or toy_state(), [1], lambda _: everybody(grid.nodes())))


def honest(value: float, shard: int, num_examples: int, train_loss: float = 0.5) -> Script:
    return lambda _: update_of(toy_state(value), shard, num_examples, train_loss)


def says(content: Content) -> Script:
    return lambda _: content


def failing(message: Message) -> Message:
    return error_reply(message, "out of memory")


def test_the_story_of_three_rounds() -> None:
    """Each node adds 1: after three rounds the model is 3, and every task held the model before."""
    numbers = []

    def add_one(message: Message) -> Content:
        numbers.append(message.content.config_records["config"]["server-round"])
        before = torch.from_numpy(message.content.array_records["arrays"]["bias"].numpy())
        return update_of({name: v + float(before[0]) for name, v in toy_state(1.0).items()}, 0)

    grid = ScriptedGrid({NODES[0]: add_one})

    def cohort(number: int) -> Cohort:
        grid.tape.append(f"cohort of round {number}")
        return everybody(grid.nodes())

    for done in rounds(grid, plan(), toy_state(), [1, 2, 3], cohort):
        grid.tape.append(f"done {done.number}: {done.state['bias'][0]:g}")

    assert grid.tape == [
        "cohort of round 1",
        "run/1 within 60 s -> node-0",
        "done 1: 1",
        "cohort of round 2",
        "run/2 within 60 s -> node-0",
        "done 2: 2",
        "cohort of round 3",
        "run/3 within 60 s -> node-0",
        "done 3: 3",
    ]
    assert numbers == [1, 2, 3]


def test_nothing_is_sent_before_the_round_is_asked_for() -> None:
    grid = ScriptedGrid({NODES[0]: honest(1.0, 0, 100)})
    story = rounds(grid, plan(), toy_state(), [5, 6], lambda _: everybody(grid.nodes()))
    assert grid.tape == []
    assert next(story).number == 5
    assert grid.tape == ["run/5 within 60 s -> node-0"]


def test_only_the_cohort_is_asked() -> None:
    grid = ScriptedGrid({node: honest(1.0, node.shard, 100) for node in NODES})
    (done,) = rounds(grid, plan(), toy_state(), [1], lambda _: everybody([NODES[3], NODES[1]]))
    assert [report.node for report in done.reports] == ["node-1", "node-3"]


def test_a_round_is_the_weighted_average_and_its_figures() -> None:
    grid = ScriptedGrid({NODES[1]: honest(5.0, 1, 300, 0.75), NODES[0]: honest(1.0, 0, 100, 0.25)})
    done = one_round(grid)
    assert torch.equal(done.state["bias"], torch.full((10,), 4.0))  # (1*100 + 5*300) / 400
    assert done.averaged
    assert done.train_loss == 0.625  # (0.25*100 + 0.75*300) / 400
    assert done.share_of_data == 0.4  # 400 of 1000
    assert (done.num_nodes, done.num_rejected, done.num_expired) == (2, 0, 0)
    assert (done.bytes_down, done.bytes_up) == (2000, 200)
    assert done.fit_seconds == 0.25


def test_overhead_is_what_training_did_not_take() -> None:
    done = one_round(ScriptedGrid({NODES[0]: honest(1.0, 0, 100)}))
    assert done.overhead_seconds == max(0.0, done.seconds - 0.25)


def test_every_task_is_reported_in_node_order() -> None:
    grid = ScriptedGrid(
        {
            NODES[3]: says("no update within 60 s"),
            NODES[2]: failing,
            NODES[1]: honest(2.0, 1, 300, 0.75),
            OWN: honest(1.0, -1, 50),
        }
    )
    done = one_round(grid)
    common: dict[str, Any] = {"round": 1, "bytes_down": 1000, "seconds": 2.0}
    none = {"examples": 0, "weights": None, "sha256": "", "fit_seconds": 0.0, "threads": 0}
    weights = [report.weights for report in done.reports]
    own, accepted, rejected, expired = done.reports
    assert own == NodeReport(
        task="run/1/own", node="own", shard=-1, verdict="accepted", reason="", bytes_up=100, train_loss=0.5,
        examples=50, weights=weights[0], fit_seconds=0.25, threads=1, norm=4.0, **common,  # 16 weights, each 1 away
    )  # fmt: skip
    assert accepted == NodeReport(
        task="run/1/node-1", node="node-1", shard=1, verdict="accepted", reason="", bytes_up=100, train_loss=0.75,
        examples=300, weights=weights[1], fit_seconds=0.25, threads=1, norm=8.0, **common,
    )  # fmt: skip
    assert math.isnan(rejected.train_loss)
    assert math.isnan(expired.train_loss)
    assert (rejected.task, rejected.verdict, rejected.bytes_up) == ("run/1/node-2", "rejected", 100)
    assert rejected.reason == "the node could not train: out of memory"
    assert (expired.task, expired.verdict, expired.bytes_up) == ("run/1/node-3", "expired", 0)
    assert expired.reason == "no update within 60 s"
    for report in (rejected, expired):
        assert {key: getattr(report, key) for key in none} == none
        assert math.isnan(report.norm)
    assert (done.num_nodes, done.num_rejected, done.num_expired) == (2, 1, 1)


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian"])  # the latter takes the arrays out of its replies
def test_the_ledger_knows_an_update_by_its_bits_until_the_next_round(strategy: str) -> None:
    grid = ScriptedGrid({NODES[0]: honest(1.0, 0, 100), NODES[1]: honest(5.0, 1, 300)})
    of_the_name = plan(name=strategy)
    story = rounds(grid, of_the_name, toy_state(), [1, 2, 3], lambda _: everybody(grid.nodes()))
    first = next(story).reports
    assert [each.sha256 for each in first] == [weights_sha256(toy_state(1.0)), weights_sha256(toy_state(5.0))]
    second = next(story).reports
    assert [each.weights is not None and len(each.weights) for each in first] == [0, 0]  # no longer kept
    next(story)
    with pytest.raises(AssertionError, match="the round of run/2/node-0 has let go of it"):
        second[0].ledger_record()


def test_a_digested_round_needs_its_updates_no_more() -> None:
    grid = ScriptedGrid({NODES[0]: honest(1.0, 0, 100), NODES[1]: says("out of memory")})
    whole = one_round(grid)
    done = whole.digested()
    assert [each.weights for each in done.reports] == [None, None]
    assert [each.weights is not None and len(each.weights) for each in whole.reports] == [0, False]
    assert done.digested().reports == done.reports
    assert [each.ledger_record()["sha256"] for each in done.reports] == [weights_sha256(toy_state(1.0)), ""]


def test_a_node_with_its_own_data_widens_the_whole() -> None:
    done = one_round(ScriptedGrid({NODES[0]: honest(1.0, 0, 100), OWN: honest(1.5, -1, 50)}))
    assert done.share_of_data == 150 / 1050


@pytest.mark.parametrize("script", [says("its link broke"), failing], ids=["expired", "rejected"])
def test_a_round_without_a_usable_update_keeps_the_model(script: Script) -> None:
    before = toy_state(0.1)
    done = one_round(ScriptedGrid({NODES[0]: script}), before)
    assert not done.averaged
    assert all(torch.equal(done.state[name], before[name]) for name in before)
    assert math.isnan(done.train_loss)
    assert (done.share_of_data, done.fit_seconds, done.num_nodes) == (0.0, 0.0, 0)


def test_the_round_after_a_lost_one_goes_on_from_the_kept_model() -> None:
    answers: Iterator[Content] = iter(["its link broke", update_of(toy_state(3.0), 0)])
    grid = ScriptedGrid({NODES[0]: lambda _: next(answers)})
    first, second = rounds(grid, plan(), toy_state(2.0), [1, 2], lambda _: everybody(grid.nodes()))
    assert (first.averaged, second.averaged) == (False, True)
    assert second.state["bias"][0] == 3.0


def test_a_rejected_update_leaves_its_fingerprint_out_of_the_average() -> None:
    nan = toy_state(math.nan)
    done = one_round(ScriptedGrid({NODES[1]: lambda _: update_of(nan, 1), NODES[0]: honest(1.0, 0, 100)}))
    assert torch.equal(done.state["bias"], torch.ones(10))
    assert done.reports[1].reason.endswith("holds values that are not finite")


def test_where_only_the_update_tells_the_shard_it_gives_the_order_and_the_report() -> None:
    late, early = Node(7, "node-7", UNKNOWN_SHARD), Node(8, "node-8", UNKNOWN_SHARD)
    lost = Node(6, "node-6", UNKNOWN_SHARD)
    grid = ScriptedGrid({late: honest(1.0, 3, 100), early: honest(2.0, 0, 100), lost: says("no update within 60 s")})
    done = one_round(grid)
    order = [("node-6", UNKNOWN_SHARD), ("node-8", 0), ("node-7", 3)]
    assert [(report.node, report.shard) for report in done.reports] == order
