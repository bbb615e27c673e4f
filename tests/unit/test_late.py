"""Rule: every strategy averages a late update with the others, and what is owed survives in a checkpoint as it is."""

import math
from typing import get_args

import pytest
from flwr.app import Message

from common.errors import RunDirectoryError
from common.settings import StrategySettings
from server import strategies
from server.grids import Node
from server.incoming import Origin
from server.link.roster import node_id
from server.memory import Plain
from server.updates.late import rebased
from server.updates.owed import Owed, from_memory, to_memory
from server.updates.repeats import Repeats
from server.updates.screening import Screen, Screened
from tests.link_twins import link_settings
from tests.scripted_grid import task_message, toy_state, update_of

pytestmark = pytest.mark.usefixtures("imports_left_alone")

STRATEGIES = get_args(StrategySettings.model_fields["name"].annotation)
NODES = [Node(number + 1, f"n{number}", number) for number in range(8)]
SCREEN = Screen([100] * 8, max_own_examples=1, max_norm_ratio=0.0)
OWED = Owed("run/3/b", 3, Node(node_id("b"), "b", 1), "its link broke", 2.5, budget=64)


def screened(node: Node, value: float, base: float) -> tuple[Screened, Message]:
    reply = Message(update_of(toy_state(value), node.shard), reply_to=task_message(node))
    return SCREEN.check(reply, node, Origin.of(toy_state(base))), reply


def test_a_late_update_keeps_its_difference_and_its_report() -> None:
    update, _ = screened(NODES[0], 3.0, base=1.0)
    late = rebased(update, toy_state(1.0), toy_state(10.0), staleness=3)
    assert float(late.arrays["bias"].numpy()[0]) == 12.0
    assert late.content.metric_records["metrics"]["num-examples"] == 50.0
    assert (late.num_examples, late.original, late.norm) == (100, update.original, update.norm)


def test_who_learned_nothing_repeats_nobody_however_late_it_says_so() -> None:
    """Also where the average of equal weights is another model in its last bits."""
    repeats, before, now = Repeats(), toy_state(1.0), toy_state(1.0 + 2**-23)
    in_time, _ = screened(NODES[0], 1.0, base=1.0)
    late = [rebased(screened(node, 1.0, base=1.0)[0], before, now, staleness=1) for node in NODES[1:3]]
    assert repeats.stale(1, [in_time], model=1) == {}
    assert repeats.stale(2, late, model=2) == {}
    assert SCREEN.compare(late) == {}


def test_of_the_model_of_now_it_stays_as_it_is() -> None:
    update, _ = screened(NODES[0], 0.1, base=0.3)
    same = rebased(update, toy_state(0.3), toy_state(0.3), staleness=0)
    assert same.arrays == update.arrays


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_takes_it_as_one_more_update(name: str) -> None:
    settings = link_settings(strategy_name=name).strategy
    strategy, state = strategies.build(settings), toy_state(10.0)
    config = task_message().content.config_records["config"]
    strategies.tasks(strategy, 2, update_of(state, 0).array_records["arrays"], config, [n.node_id for n in NODES])
    found = [screened(node, 11.0, base=10.0) for node in NODES[:-1]]
    update, reply = screened(NODES[-1], 2.0, base=1.0)
    updates = [each for each, _ in found] + [rebased(update, toy_state(1.0), state, staleness=1)]
    replies = {each.node.node_id: said for each, said in (*found, (update, reply))}
    averaged = strategies.average(strategy, 2, updates, replies)
    assert averaged is not None
    values = {float(value) for tensor in averaged.values() for value in tensor.flatten()}
    assert all(10.0 < value <= 11.0 + 1e-5 for value in values), values  # all of them went from 10 to 11


def test_what_is_owed_comes_back_as_it_was() -> None:
    owed, models = from_memory(to_memory([OWED], {3: toy_state(1.5)}))
    assert owed == {"run/3/b": OWED}
    assert list(models) == [3]
    assert float(models[3]["bias"][0]) == 1.5
    assert from_memory({}) == ({}, {})
    assert to_memory([], {}) == {}


def test_what_is_owed_when_a_run_is_over_has_expired() -> None:
    record = OWED.report().ledger_record()
    assert (record["task"], record["round"], record["verdict"]) == ("run/3/b", 3, "expired")
    assert (record["reason"], record["seconds"], record["examples"]) == ("its link broke", 2.5, 0)
    assert math.isnan(OWED.report().train_loss)


@pytest.mark.parametrize("change", ["tasks", "models", "round", "name", "budget", "number"])
def test_a_memory_that_is_none_is_refused(change: str) -> None:
    memory = to_memory([OWED], {3: toy_state(1.5)})
    task: Plain = {"round": 3, "node": "b", "shard": 1, "own_examples": 0, "reason": "", "seconds": 1.0, "budget": None}
    assert isinstance(task, dict)
    wrong: dict[str, dict[str, Plain]] = {
        "tasks": {"tasks": []},
        "models": {"models": {}},
        "round": {"tasks": {"run/3/b": task | {"round": 4}}},
        "name": {"tasks": {"run/3/b": task | {"node": 7}}},
        "budget": {"tasks": {"run/3/b": task | {"budget": "all"}}},
        "number": {"models": {"three": {}}},
    }
    with pytest.raises(RunDirectoryError, match="the checkpoint's late work "):
        from_memory(memory | wrong[change])
