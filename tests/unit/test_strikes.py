"""Rule: so many unusable updates in a row set a node aside; its own troubles, lateness and lost rounds never do."""

import math
from collections.abc import Sequence

import pytest
from flwr.app import ConfigRecord

from common.layers import load
from common.records import error_reply
from server import strategies
from server.plan import Plan
from server.report import NodeReport, Round
from server.rounds import rounds
from server.updates.screening import Screen
from server.updates.strikes import Strikes
from tests.bad_replies import OFFENDER, TABLE, TEN_MORE, BadReply
from tests.scripted_grid import NODES, Script, ScriptedGrid, everybody, toy_state, update_of

NAME = OFFENDER.name
ASIDE = "3 unusable updates in a row: set aside for the rest of the run (federation.max_strikes)"


def report(verdict: str = "rejected", is_fault: bool = True, node: str = NAME) -> NodeReport:
    return NodeReport(
        f"run/1/{node}", 1, node, 3, 0, None, verdict, "a reason", math.nan, 0.0, 1.0, 10, 10, 0, is_fault=is_fault,  # type: ignore[arg-type]
    )  # fmt: skip


def judged(strikes: Strikes, reports: Sequence[NodeReport]) -> tuple[list[str], tuple[str, ...]]:
    figures = (math.nan, 0.0, 1.0, 0.0, 1.0, 10, 10)
    done, aside = strikes.judged(Round(1, toy_state(), tuple(reports), False, *figures))
    return [each.reason for each in done.reports], aside


def test_three_faults_in_a_row_set_a_node_aside_and_tell_it_once() -> None:
    strikes, others = Strikes(3, {}), report("accepted", False, "other")
    assert judged(strikes, [report(), others]) == (["a reason", "a reason"], ())
    assert judged(strikes, [report()]) == (["a reason"], ())
    assert strikes.admits(OFFENDER)
    assert judged(strikes, [report(), others]) == ([f"a reason; {ASIDE}", "a reason"], (NAME,))
    assert not strikes.admits(OFFENDER)
    assert strikes.admits(NODES[0])
    assert strikes.num_aside == 1


def test_an_accepted_update_clears_the_count() -> None:
    strikes = Strikes(2, {})
    for each in [report(), report("accepted", False)] * 5:
        judged(strikes, [each])
    assert strikes.admits(OFFENDER)
    assert strikes.counters == {}


@pytest.mark.parametrize("verdict", ["rejected", "expired"])
def test_what_is_no_fault_neither_adds_nor_clears(verdict: str) -> None:
    strikes = Strikes(2, {})
    for each in [report(), *[report(verdict, False)] * 5]:
        judged(strikes, [each])
    assert strikes.counters == {f"strikes/{NAME}": 1}


def test_counts_go_on_after_a_restart() -> None:
    before = Strikes(3, {"failed_rounds": 2})
    judged(before, [report()])
    judged(before, [report()])
    again = Strikes(3, before.counters | {"failed_rounds": 2})
    assert judged(again, [report()])[1] == (NAME,)
    assert not Strikes(3, again.counters).admits(OFFENDER)


def test_0_strikes_set_nobody_aside() -> None:
    strikes = Strikes(0, {f"strikes/{NAME}": 9})
    assert judged(strikes, [report()] * 9) == (["a reason"] * 9, ())
    assert (strikes.admits(OFFENDER), strikes.num_aside, strikes.counters) == (True, 0, {})


def is_fault(script: Script, others: int = 3) -> bool:
    """Whether what the offender sends in a round counts against it."""
    values = (1.0, 2.0, 3.0)
    grid = ScriptedGrid(
        {NODES[n]: lambda _, n=n: update_of(toy_state(values[n]), n) for n in range(others)} | {OFFENDER: script}
    )
    plan = Plan("run", strategies.build(load().strategy), Screen([1000] * 4, 500, 5.0), ConfigRecord({}), 60.0)
    (done,) = rounds(grid, plan, toy_state(), [1], lambda _: everybody(grid.nodes()))
    (found,) = [each for each in done.reports if each.node == NAME]
    assert found.verdict != "accepted"
    return found.is_fault


@pytest.mark.parametrize("row", [row for row in (*TABLE, *TEN_MORE) if row.number not in (1, 34)], ids=str)
def test_every_bad_reply_is_a_fault(row: BadReply) -> None:
    assert is_fault(row.make)


@pytest.mark.parametrize(
    "script",
    [
        lambda message: error_reply(message, "out of memory"),
        lambda _: "no update within 60 s",
        lambda _: update_of(toy_state(2.0), OFFENDER.shard),  # who copied whom?
    ],
    ids=["its own troubles", "late", "a copy"],
)
def test_what_may_happen_to_an_honest_node_is_no_fault(script: Script) -> None:
    assert not is_fault(script)
