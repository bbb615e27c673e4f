"""Rule: an answer is screened as soon as it is there, and the order in which answers come decides nothing."""

import gc
import weakref
from collections.abc import Iterator

import pytest
from flwr.app import Message

from common.flat import ArrayRecord
from server.arrivals import arrivals
from server.grids import Answer, Node
from server.incoming import Origin
from server.updates.screening import Screen, Screened
from tests.scripted_grid import NODES, task_message, toy_state, update_of

SCREEN = Screen([100] * 4, 1, max_norm_ratio=0.0)
BY_ID = {node.node_id: node for node in NODES}


def answer(node: Node, value: float) -> Answer:
    reply = Message(update_of(toy_state(value), node.shard), reply_to=task_message(node))
    return Answer(node.node_id, reply, "", 1.0, 0, 0)


def test_each_is_screened_before_the_next_one_comes() -> None:
    tape: list[str] = []

    def check(reply: Message, node: Node) -> Screened:
        tape.append(f"{node.name} screened")
        return SCREEN.check(reply, node, Origin.of(toy_state(0.0)))

    def coming() -> Iterator[Answer]:
        for node in (NODES[2], NODES[0]):
            tape.append(f"{node.name} comes")
            yield answer(node, float(node.shard))

    arrivals(coming(), BY_ID, check)
    assert tape == ["node-2 comes", "node-2 screened", "node-0 comes", "node-0 screened"]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_whatever_comes_first_all_is_in_node_order(order: tuple[int, ...]) -> None:
    answers = {
        0: answer(NODES[0], 0.5),
        1: Answer(NODES[1].node_id, None, "it left", 1.0, 0, 0),
        2: answer(NODES[2], float("nan")),
        3: answer(NODES[3], 0.25),
    }
    found = arrivals(
        (answers[number] for number in order),
        BY_ID,
        lambda reply, node: SCREEN.check(reply, node, Origin.of(toy_state(0.0))),
    )
    assert [each.node_id for each in found.answers] == [1, 2, 3, 4]
    assert [update.norm for update in found.checked] == [2.0, 1.0]  # 16 weights, each 0.5 or 0.25 away
    assert found.rejected == {3: "weight holds values that are not finite"}


def test_what_was_used_is_free_before_the_collector_looks() -> None:
    came = answer(NODES[0], 1.0)
    assert came.reply is not None
    record = came.reply.content["arrays"]
    assert isinstance(record, ArrayRecord)
    weights = weakref.ref(record.vector)
    del record
    gc.disable()
    try:
        found = arrivals([came], BY_ID, lambda reply, node: SCREEN.check(reply, node, Origin.of(toy_state(0.0))))
        assert weights() is not None  # the average needs it
        found.checked[0].arrays.clear()
        assert weights() is not None  # the ledger needs its digest
        found.checked[0].original.clear()
        assert weights() is None
    finally:
        gc.enable()
