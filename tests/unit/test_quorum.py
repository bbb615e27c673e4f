"""Rule: a round takes the first updates of those asked, knows how many make an average, and fills a vanished place."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from flwr.app import ConfigRecord, Message

from common.layers import load
from common.records import error_reply
from server import strategies
from server.gathering import Cohort, sample
from server.grids import ENOUGH, Node
from server.plan import Plan
from server.report import Round
from server.rounds import rounds
from server.updates.screening import Screen
from tests.scripted_grid import NODES, Content, Script, ScriptedGrid, everybody, toy_state, update_of

VANISHED = "its link broke, and it was not back within 30 s"


def sends(value: float, shard: int) -> Script:
    return lambda _: update_of(toy_state(value), shard)


def failing(message: Message) -> Content:
    return error_reply(message, "out of memory")


def vanishing(_: Message) -> Content:
    return VANISHED


def plan(min_report_fraction: float = 0.0, replace_lost: bool = False, num_nodes: int = 4) -> Plan:
    strategy, screen = strategies.build(load().strategy), Screen([100] * num_nodes, 1000, 0.0)
    return Plan(
        "run", strategy, screen, ConfigRecord({}), 60.0,
        min_report_fraction=min_report_fraction, replace_lost=replace_lost,
    )  # fmt: skip


def one_round(grid: ScriptedGrid, of: Plan, cohort: Cohort | None = None) -> Round:
    (done,) = rounds(grid, of, toy_state(), [1], lambda _: cohort or everybody(grid.nodes()))
    return done


def told(done: Round) -> list[tuple[str, str]]:
    return [(report.verdict, report.reason) for report in done.reports]


@pytest.mark.parametrize(
    ("over_selection", "num_asked"), [(0.0, 10), (0.1, 11), (0.3, 13), (0.25, 13), (1.0, 20), (10.0, 30)]
)
def test_more_nodes_are_asked_than_wanted(over_selection: float, num_asked: int) -> None:
    nodes = [Node(number + 1, f"n{number:02}", number) for number in range(30)]
    cohort = sample(nodes, 1 / 3, 1, 1, over_selection)
    assert (cohort.num_wanted, len(cohort.nodes)) == (10, num_asked)
    assert set(sample(nodes, 1 / 3, 1, 1).nodes) <= set(cohort.nodes)  # the same ones, and some more
    assert sorted([*cohort.nodes, *cohort.reserve], key=lambda node: node.order) == nodes


def test_the_first_updates_count_and_the_rest_expires() -> None:
    grid = ScriptedGrid({NODES[n]: sends(float(n + 1), n) for n in (3, 1, 0, 2)})
    done = one_round(grid, plan(), Cohort(NODES, num_wanted=2))
    assert told(done) == [("expired", ENOUGH), ("accepted", ""), ("expired", ENOUGH), ("accepted", "")]
    assert torch.equal(done.state["bias"], torch.full((10,), 3.0))  # (2 + 4) / 2


def test_an_error_is_no_update_to_be_satisfied_with() -> None:
    grid = ScriptedGrid({NODES[0]: failing, NODES[1]: sends(2.0, 1), NODES[2]: sends(3.0, 2)})
    done = one_round(grid, plan(), Cohort(NODES[:3], num_wanted=1))
    assert [verdict for verdict, _ in told(done)] == ["rejected", "accepted", "expired"]


@pytest.mark.parametrize(
    ("fraction", "num_sent", "averaged"),
    [(0.0, 1, True), (0.5, 1, False), (0.5, 2, True), (0.51, 2, False), (1.0, 4, True)],
)
def test_too_few_updates_keep_the_model(fraction: float, num_sent: int, averaged: bool) -> None:
    scripts = {node: sends(node.shard + 1.0, node.shard) if node.shard < num_sent else failing for node in NODES}
    done = one_round(ScriptedGrid(scripts), plan(fraction))
    assert done.averaged is averaged
    if not averaged:
        assert torch.equal(done.state["bias"], torch.zeros(10))
        needed = 2 if fraction == 0.5 else 3
        lost = f"the round needs {needed} of 4 updates (federation.min_report_fraction), {num_sent} are usable"
        assert told(done)[0] == ("rejected", lost)
        assert not done.reports[0].is_fault


@pytest.mark.parametrize("replace_lost", [True, False])
def test_a_free_node_takes_the_place_of_one_that_vanished(replace_lost: bool) -> None:
    grid = ScriptedGrid({NODES[0]: vanishing, NODES[1]: sends(2.0, 1), NODES[2]: sends(3.0, 2), NODES[3]: vanishing})
    done = one_round(grid, plan(replace_lost=replace_lost), Cohort(NODES[:2], 2, reserve=(NODES[3], NODES[2])))
    verdicts = {report.node: report.verdict for report in done.reports}
    expected = {"node-0": "expired", "node-1": "accepted"}
    if replace_lost:  # node-3 stood by first, and vanished as well
        expected |= {"node-2": "accepted", "node-3": "expired"}
    assert verdicts == expected


def test_a_hundred_rounds_of_vanishing_and_failing_nodes_leave_no_task_without_a_verdict() -> None:
    """40 nodes, 10 wanted, 13 asked; one in ten vanishes, one in five fails: each task issued has one verdict."""
    chance = random.Random(7)
    nodes = [Node(number + 1, f"n{number:02}", number) for number in range(40)]

    def fickle(shard: int) -> Script:
        def answer(message: Message) -> Content:
            fate = chance.random()
            if fate < 0.1:
                return VANISHED
            return failing(message) if fate < 0.3 else update_of(toy_state(chance.random()), shard)

        return answer

    def shuffled(number: int) -> Cohort:
        grid.scripts = dict(chance.sample(list(grid.scripts.items()), len(nodes)))  # who is first
        return sample(grid.nodes(), 0.25, 1, number, 0.3)

    grid = ScriptedGrid({node: fickle(node.shard) for node in nodes})
    counts: Counter[str] = Counter()
    numbers: Sequence[int] = range(1, 101)
    for done in rounds(grid, plan(0.5, True, len(nodes)), toy_state(), numbers, shuffled):
        tasks = [report.task for report in done.reports]
        replaced = sum(line.startswith(f"run/{done.number} -> ") for line in grid.tape)
        assert len(tasks) == len(set(tasks)) == 13 + replaced
        assert done.num_nodes <= 10
        assert done.averaged is (done.num_nodes >= 5)
        counts.update(report.verdict for report in done.reports)
        grid.tape.clear()
    assert counts["accepted"] > 900
    assert min(counts["rejected"], counts["expired"]) > 100
