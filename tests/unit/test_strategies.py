"""Rule: FedAvg is the mean weighted by examples, summed in node order whoever came first, bit for bit."""

import gc
import itertools

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message

from common.arrays import to_record, to_state
from common.layers import load
from common.models import State
from server import strategies
from server.grids import Node
from server.incoming import Origin
from server.plan import Plan
from server.rounds import rounds
from server.updates.screening import Screen, Screened
from tests.scripted_grid import NODES, Script, ScriptedGrid, everybody, task_message, toy_state, update_of

SETTINGS = load().strategy


def screened(node: Node, state: State, num_examples: int) -> tuple[Screened, Message]:
    reply = Message(update_of(state, node.shard, num_examples), reply_to=task_message(node))
    return Screen([1000] * 4, 1000, 0.0).check(reply, node, Origin.of(toy_state())), reply


def averaged(*updates: tuple[Screened, Message]) -> State:
    strategy = strategies.build(SETTINGS)
    replies = {update.node.node_id: reply for update, reply in updates}
    result = strategies.average(strategy, 1, [update for update, _ in updates], replies)
    assert result is not None
    return result


def test_updates_of_100_and_300_examples_weigh_1_to_3() -> None:
    result = averaged(screened(NODES[0], toy_state(1.0), 100), screened(NODES[1], toy_state(5.0), 300))
    assert torch.equal(result["bias"], torch.full((10,), 4.0))  # (1*1 + 3*5) / 4
    assert torch.equal(result["weight"], torch.full((2, 3), 4.0))


def test_the_average_is_the_sum_of_products_in_float32() -> None:
    generator = torch.Generator().manual_seed(3)
    states = [{n: torch.randn(v.shape, generator=generator) for n, v in toy_state().items()} for _ in range(3)]
    result = averaged(*(screened(NODES[i], states[i], [100, 700, 37][i]) for i in range(3)))
    for name in toy_state():
        by_hand = states[0][name].numpy() * (100 / 837)
        by_hand += states[1][name].numpy() * (700 / 837)
        by_hand += states[2][name].numpy() * (37 / 837)
        assert by_hand.dtype == np.float32
        assert result[name].numpy().tobytes() == by_hand.tobytes()


def test_one_update_alone_is_the_next_model() -> None:
    assert torch.equal(averaged(screened(NODES[2], toy_state(0.1), 7))["bias"], toy_state(0.1)["bias"])


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_whoever_comes_first_the_model_is_the_same_bit_for_bit(order: tuple[int, ...]) -> None:
    def script(number: int) -> Script:
        generator = torch.Generator().manual_seed(number)
        state = {name: torch.randn(v.shape, generator=generator) for name, v in toy_state().items()}
        return lambda _: update_of(state, number, num_examples=[100, 300, 7, 993][number])

    def model_after(arrivals: tuple[int, ...]) -> bytes:
        grid = ScriptedGrid({NODES[number]: script(number) for number in arrivals})
        plan = Plan("run", strategies.build(SETTINGS), Screen([1000] * 4, 1, 0.0), ConfigRecord({}), 60.0)
        (done,) = rounds(grid, plan, toy_state(), [1], lambda _: everybody(grid.nodes()))
        return done.state["weight"].numpy().tobytes() + done.state["bias"].numpy().tobytes()

    assert model_after(order) == model_after((0, 1, 2, 3))


def test_a_strategy_asks_just_the_cohort_with_the_model_and_the_round() -> None:
    config = ConfigRecord({"run": "r"})
    messages = strategies.tasks(strategies.build(SETTINGS), 3, to_record(toy_state(2.0)), config, [12, 11])
    assert {message.metadata.dst_node_id for message in messages} == {11, 12}
    assert {message.metadata.message_type for message in messages} == {"train"}
    assert len({id(message.content) for message in messages}) == 1
    content = messages[0].content
    assert torch.equal(to_state(content.array_records["arrays"])["bias"], toy_state(2.0)["bias"])
    assert dict(content.config_records["config"]) == {"run": "r", "server-round": 3}


def test_what_lives_through_an_average_does_not_count_as_old() -> None:
    """Old garbage is hardly ever collected: a server that runs for days would grow by a model in every round."""
    strategy, (update, reply) = strategies.build(SETTINGS), screened(NODES[0], toy_state(1.0), 100)
    gc.disable()  # a collection that comes by chance makes objects older as well
    try:
        young = [object]
        strategies.average(strategy, 1, [update], {NODES[0].node_id: reply})
        assert not any(each is young for each in gc.get_objects(generation=2))
    finally:
        gc.enable()
