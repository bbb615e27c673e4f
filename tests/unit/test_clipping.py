"""Rule: an update longer than a multiple of the running median counts with that length, and the ledger says so."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord

from common.arrays import to_state
from common.errors import RunDirectoryError
from common.layers import load
from common.training import Evaluation
from server import strategies
from server.grids import Node
from server.plan import Plan
from server.report import Round, metrics_record
from server.rounds import rounds
from server.updates.clipping import Clipping
from server.updates.screening import Screen
from tests.scripted_grid import Script, ScriptedGrid, everybody, toy_state, update_of

NODES = [Node(number + 1, f"node-{number}", number) for number in range(5)]


def adds(value: float, shard: int, examples: int = 100) -> Script:
    """Answers with the model it was sent, ``value`` added to each of its 16 weights: 4 x ``value`` away."""

    def answer(message: Any) -> Any:
        state = to_state(message.content.array_records["arrays"])
        return update_of({name: each + value for name, each in state.items()}, shard, examples)

    return answer


def train(
    values: Sequence[Sequence[float]],
    clipping: Clipping,
    first: int = 1,
    start: float = 0.0,
    max_norm_ratio: float = 5.0,
) -> list[Round]:
    """Rounds from ``first`` on; in each, node i adds ``values[round][i]``."""
    screen = Screen([1000] * 5, max_own_examples=1, max_norm_ratio=max_norm_ratio)
    plan = Plan("run", strategies.build(load().strategy), screen, ConfigRecord({}), 60.0, clipping=clipping)
    state, done = toy_state(start), list[Round]()
    for number, row in enumerate(values, start=first):
        grid = ScriptedGrid({NODES[shard]: adds(value, shard) for shard, value in enumerate(row)})
        done.append(next(rounds(grid, plan, state, [number], lambda _, grid=grid: everybody(grid.nodes()))))  # type: ignore[misc]
        state = done[-1].state
    return done


def weight(done: Round) -> float:
    """Any weight of the toy model: all are the same."""
    return float(done.state["bias"][0])


def test_a_long_update_is_averaged_with_the_length_that_is_allowed() -> None:
    (done,) = train([[1.0, 2.0, 3.0, 8.0]], Clipping(2.0))
    # the lower median of 4, 8, 12 and 32 is 8: at most 16, so the last node adds 4 to each of the 16 weights
    assert weight(done) == (1 + 2 + 3 + 4) / 4
    assert [(report.verdict, report.reason) for report in done.reports] == [
        *[("accepted", "")] * 3,
        ("accepted", "clipped from 32 to 16 (2 x the median of the last rounds)"),
    ]
    assert [report.norm for report in done.reports] == [4.0, 8.0, 12.0, 32.0]  # as they came in
    assert (done.num_nodes, done.num_clipped, done.num_rejected) == (4, 1, 0)


def test_what_counts_is_the_direction_too() -> None:
    (done,) = train([[1.0, 2.0, 3.0, -8.0]], Clipping(2.0))
    assert weight(done) == (1 + 2 + 3 - 4) / 4


def test_the_hash_in_the_ledger_is_that_of_the_update_as_it_came() -> None:
    whole, clipped = (train([[1.0, 2.0, 3.0, 8.0]], Clipping(ratio))[0] for ratio in (0.0, 2.0))
    assert [report.sha256 for report in clipped.reports] == [report.sha256 for report in whole.reports]
    assert [report.is_clipped for report in clipped.reports] == [False, False, False, True]
    assert not any(report.is_clipped for report in whole.reports)


def test_the_median_is_over_this_round_and_the_last_two() -> None:
    rows = [[8.0, 8.0, 8.0], [1.0, 1.0, 1.0], [1.0, 1.0, 15.0], [1.0, 1.0, 15.0]]
    *_, third, fourth = train([_apart(row) for row in rows], Clipping(2.0), max_norm_ratio=0.0)
    # of three lengths near 32, five near 4 and one near 60 the lower median is the largest of the five, 4.008
    assert [report.is_clipped for report in third.reports] == [False, False, True]
    assert third.reports[2].reason == "clipped from 60 to 8.02 (2 x the median of the last rounds)"
    # those of round 1 are forgotten: seven near 4, whose fifth is 4.004
    assert fourth.reports[2].reason == "clipped from 60 to 8.01 (2 x the median of the last rounds)"


def test_when_all_grow_longer_at_once_nothing_is_clipped() -> None:
    """As in the second round on small shards, where the first hardly moves the model."""
    first, second = train([_apart([1.0] * 4), _apart([4.0] * 4)], Clipping(2.5))
    assert (first.num_clipped, second.num_clipped) == (0, 0)
    assert weight(second) - weight(first) == pytest.approx(4.0, abs=0.01)


def test_one_update_alone_is_held_against_the_rounds_before() -> None:
    *_, third = train([[1.0], [1.25], [8.0]], Clipping(2.0))
    assert third.reports[0].reason == "clipped from 32 to 10 (2 x the median of the last rounds)"


def test_a_rejected_update_is_neither_clipped_nor_remembered() -> None:
    with_it, without = Clipping(2.0), Clipping(2.0)
    (heard,) = train([[1.0, 2.0, 3.0, 90.0]], with_it)
    (unheard,) = train([[1.0, 2.0, 3.0]], without)
    assert heard.reports[3].reason.endswith("5 x the cohort's median (strategy.max_norm_ratio)")
    assert torch.equal(heard.state["bias"], unheard.state["bias"])
    assert with_it.norms == without.norms == [[4.0, 8.0, 12.0]]


def test_a_round_that_makes_no_model_leaves_no_trace() -> None:
    clipping = Clipping(2.0)
    screen = Screen([1000] * 5, max_own_examples=1, max_norm_ratio=5.0)
    strategy = strategies.build(load().strategy)
    plan = Plan("run", strategy, screen, ConfigRecord({}), 60.0, num_needed=5, clipping=clipping)
    grid = ScriptedGrid({NODES[shard]: adds(value, shard) for shard, value in enumerate([1.0, 2.0, 3.0, 8.0])})
    (done,) = rounds(grid, plan, toy_state(), [1], lambda _: everybody(grid.nodes()))
    told = "the strategy needs 5 updates, 4 of this round are usable"
    assert {(report.verdict, report.reason) for report in done.reports} == {("rejected", told)}
    assert (done.num_clipped, clipping.norms) == (0, [])


@pytest.mark.parametrize("values", [[1.0, 90.0], [0.0, 0.0, 0.0, 0.25]], ids=["two nodes", "most learned nothing"])
def test_where_nobody_can_say_what_is_long_nothing_is_clipped(values: list[float]) -> None:
    (done,) = train([values], Clipping(2.0))
    assert (weight(done), done.num_clipped) == (sum(values) / len(values), 0)


def test_two_nodes_are_held_against_the_round_before() -> None:
    _, second = train([[1.0, 1.5], [1.25, 8.0]], Clipping(2.0))
    # the lower median of 4, 6, 5 and 32 is 5
    assert second.reports[1].reason == "clipped from 32 to 10 (2 x the median of the last rounds)"


def test_off_is_off() -> None:
    clipping = Clipping(0.0)
    (done,) = train([[1.0, 2.0, 3.0, 8.0]], clipping)
    assert (weight(done), done.num_clipped, clipping.norms) == (3.5, 0, [])


def test_a_restart_goes_on_with_the_same_limit() -> None:
    values = [[4.0, 4.25, 4.5], [4.0, 3.5, 3.75], [1.0, 1.25, 8.0], [1.0, 1.5, 6.0]]
    whole = train(values, Clipping(1.25), max_norm_ratio=0.0)
    before = Clipping(1.25)
    half = train(values[:2], before, max_norm_ratio=0.0)
    rest = train(values[2:], Clipping(1.25, before.norms), 3, weight(half[-1]), max_norm_ratio=0.0)
    assert [weight(each) for each in (*half, *rest)] == [weight(each) for each in whole]
    forgetful = train(values[2:], Clipping(1.25), 3, weight(half[-1]), max_norm_ratio=0.0)
    assert weight(forgetful[-1]) != weight(whole[-1])  # or nothing was compared


@pytest.mark.parametrize("norms", [3.0, [3.0], [["4"]], [[math.nan]], [[math.inf]], [[-1.0]], [[4]], {"0": [4.0]}])
def test_a_memory_that_is_none_is_refused(norms: Any) -> None:
    with pytest.raises(RunDirectoryError, match="the checkpoint's norms are no lengths of updates; start a new run"):
        Clipping(2.0, norms)


def test_the_metrics_count_them() -> None:
    (done,) = train([[1.0, 2.0, 3.0, 8.0]], Clipping(2.0))
    assert metrics_record(1, Evaluation(0.5, 0.75), done, best=True)["num_clipped"] == 1


def _apart(values: list[float]) -> list[float]:
    """Nearly the same: the same update twice is a copy."""
    return [value + shard / 1024 for shard, value in enumerate(values)]
