"""Rule: whatever one node sends, under every strategy, no run ends, no model is poisoned, and the ledger has its name.

The model must be, bit for bit, that of a round in which the offender said nothing. Where the strategy remembers
something, so must the next one: its memory is as clean as the model.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import get_args

import pytest
import torch
from flwr.app import ConfigRecord, Message

from common.layers import load
from common.models import State
from common.settings import StrategySettings
from server import strategies
from server.grids import Node
from server.plan import Plan
from server.report import Round
from server.rounds import rounds
from server.updates.clipping import Clipping
from server.updates.screening import Screen
from tests.bad_replies import OFFENDER, STALE, TABLE, TEN_MORE, BadReply
from tests.scripted_grid import Content, Script, ScriptedGrid, everybody, toy_state, update_of

pytestmark = pytest.mark.usefixtures("imports_left_alone")

STRATEGIES = get_args(StrategySettings.model_fields["name"].annotation)
REMEMBERING = {"fedavgm", "fedadam", "fedyogi", "fedadagrad"}  # for them, the round after shows what they remember
ROWS = TABLE + TEN_MORE
# Seven honest nodes are enough for Bulyan; the lower median of what all eight send is 2, as in tests/bad_replies.py.
HONEST = {0: 1.0, 1: 2.0, 2: 3.0, 4: 1.25, 5: 1.5, 6: 2.5, 7: 2.75}


@cache
def settings_of(name: str) -> StrategySettings:
    return load(("test", {"strategy.name": name})).strategy


def plan_for(name: str, max_norm_ratio: float = 0.0, num_needed: int = 0) -> Plan:
    settings = settings_of(name)
    needed = num_needed or strategies.num_needed(settings)
    screen = Screen([1000] * 8, max_own_examples=500, max_norm_ratio=max_norm_ratio)
    clipping = Clipping(settings.clip_norm_ratio)
    return Plan("run", strategies.build(settings), screen, ConfigRecord({}), 60.0, needed, clipping=clipping)


def number_of(message: Message) -> int:
    number = message.content.config_records["config"]["server-round"]
    assert isinstance(number, int)
    return number


def honest(shard: int, value: float) -> Script:
    """Another update in every round, as training makes them."""
    return lambda message: update_of(toy_state(value + (number_of(message) - 1) / 64), shard, 100 + shard)


def offending(row: BadReply, in_round: int) -> Script:
    """Honest in all rounds but one."""
    is_honest = honest(OFFENDER.shard, 3.25)  # far enough out for Krum to take another one's
    return lambda message: row.make(message) if number_of(message) == in_round else is_honest(message)


def silent_in(in_round: int) -> Script:
    is_honest = honest(OFFENDER.shard, 3.25)  # far enough out for Krum to take another one's
    return lambda message: "no update within 60 s" if number_of(message) == in_round else is_honest(message)


def train(name: str, script: Script, first: bool, numbers: Sequence[int] = (1, 2)) -> list[Round]:
    """Rounds of eight nodes, the offender's answers coming in first or last."""
    others = {Node(shard + 1, f"node-{shard}", shard): honest(shard, value) for shard, value in HONEST.items()}
    grid = ScriptedGrid({OFFENDER: script} | others if first else others | {OFFENDER: script})
    return list(
        rounds(grid, plan_for(name, max_norm_ratio=5.0), toy_state(), numbers, lambda _: everybody(grid.nodes()))
    )


def same(one: State, other: State) -> bool:
    return all(torch.equal(one[name], other[name]) for name in toy_state())


def told(done: Round) -> dict[str, tuple[str, str]]:
    return {report.node: (report.verdict, report.reason) for report in done.reports}


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_bad_reply_is_as_if_it_had_never_come(name: str, first: bool) -> None:
    after = 1 if name in REMEMBERING else 0
    without = {bad: train(name, silent_in(bad), first, range(1, bad + 1 + after)) for bad in (1, 2)}
    for row in ROWS:
        bad = 2 if row is STALE else 1
        done = train(name, offending(row, bad), first, range(1, bad + 1 + after))
        assert all(each.averaged for each in done), row
        for found, expected in zip(done, without[bad], strict=True):
            assert same(found.state, expected.state), (row, found.number)
        accepted = {f"node-{shard}": ("accepted", "") for shard in HONEST}
        assert told(done[bad - 1]) == accepted | {OFFENDER.name: ("rejected", row.reason)}, row
        for each in done[bad:]:  # it is welcome when it sends what it should
            assert set(told(each).values()) == {("accepted", "")}, row


def test_the_table_has_43_rows_and_there_are_12_strategies() -> None:
    assert [row.number for row in ROWS] == list(range(1, 44))
    assert len(STRATEGIES) == 12


def test_the_offender_moves_every_strategy_when_nothing_is_wrong_with_it() -> None:
    """Or the comparison above would compare nothing: its honest update must count."""
    for name in STRATEGIES:
        heard = train(name, honest(OFFENDER.shard, 1.75), True, [1])
        unheard = train(name, lambda _: "no update within 60 s", True, [1])
        if name not in ("krum", "fedmedian"):  # which take one update of several
            assert not same(heard[0].state, unheard[0].state), name


def test_an_update_is_stale_for_ten_rounds() -> None:
    def again(message: Message) -> Content:
        return update_of(toy_state(2.0 if number_of(message) in (1, 11, 22) else 3.0 + number_of(message)), 3)

    grid = ScriptedGrid({OFFENDER: again})
    done = list(rounds(grid, plan_for("fedavg"), toy_state(), list(range(1, 23)), lambda _: everybody(grid.nodes())))
    assert [each.number for each in done if not each.averaged] == [11]
    assert done[10].reports[0].reason == "stale: the same update as that of node node-3 in round 1"


def test_the_same_update_for_the_same_model_is_not_stale() -> None:
    """A round is lost, and a node whose training knows no chance is asked for the same again."""
    grid = ScriptedGrid({OFFENDER: lambda _: update_of(toy_state(2.0), 3)})
    done = list(rounds(grid, plan_for("fedavg", num_needed=2), toy_state(), [1, 2], lambda _: everybody(grid.nodes())))
    assert {each.reports[0].reason for each in done} == {"the strategy needs 2 updates, 1 of this round are usable"}


def test_the_same_answer_to_a_model_that_comes_back_is_not_stale() -> None:
    """The model goes from 0 to 2, back to 0, and to 2: only the answer to another model is stale."""
    values = {1: 2.0, 2: 0.0, 3: 2.0, 4: -1.0, 5: 2.0}
    grid = ScriptedGrid({OFFENDER: lambda message: update_of(toy_state(values[number_of(message)]), 3)})
    done = list(rounds(grid, plan_for("fedavg"), toy_state(), list(values), lambda _: everybody(grid.nodes())))
    assert [float(each.state["bias"][0]) for each in done] == [2.0, 0.0, 2.0, -1.0, -1.0]
    assert done[4].reports[0].reason == "stale: the same update as that of node node-3 in round 1"


def test_a_node_that_learned_nothing_is_not_stale() -> None:
    others = {Node(1, "node-0", 0): honest(0, 1.0)}
    idle: Script = lambda message: update_of(  # noqa: E731
        {name: torch.from_numpy(array.numpy()) for name, array in message.content.array_records["arrays"].items()}, 3
    )
    grid = ScriptedGrid(others | {OFFENDER: idle})
    done = list(rounds(grid, plan_for("fedavg"), toy_state(), [1, 2, 3], lambda _: everybody(grid.nodes())))
    assert [each.num_nodes for each in done] == [2, 2, 2]


@pytest.mark.parametrize(("name", "num_nodes"), [("krum", 5), ("multikrum", 6), ("bulyan", 7)])
def test_a_node_found_out_is_not_looked_for_among_the_others(name: str, num_nodes: int) -> None:
    """With no node to spare, one that sends nonsense must not keep the model as it is; one that is silent does."""
    assert strategies.num_needed(settings_of(name)) == num_nodes
    others = {Node(shard + 1, f"node-{shard}", shard): honest(shard, 2 + shard / 64) for shard in range(num_nodes - 1)}
    offender = Node(90, "offender", 7)

    def averaged(script: Script, num_aside: int = 0) -> bool:
        grid = ScriptedGrid({offender: script} | others)
        plan = replace(plan_for(name), num_aside=lambda: num_aside)
        [done] = rounds(grid, plan, toy_state(), [1], lambda _: everybody(grid.nodes()))
        assert not done.averaged or 2 <= float(done.state["bias"][0]) < 2.1
        return done.averaged

    assert averaged(lambda _: update_of(toy_state(float("nan")), 7, 100))
    assert not averaged(lambda _: "no update within 60 s")
    assert averaged(lambda _: "no update within 60 s", num_aside=1)


def test_no_more_nodes_are_found_out_than_the_strategy_was_told_of() -> None:
    krum = strategies.build(settings_of("krum"))  # f = 1
    assert [strategies.withstands(krum, num, 1) for num in (5, 4, 3, 2)] == [1, 0, 0, None]
    assert [strategies.withstands(krum, 4, num_out) for num_out in (0, 1, 9)] == [None, 0, 0]
    assert strategies.withstands(strategies.build(settings_of("fedavg")), 1, 1) is None
