"""Rule: nodes of Flower's engines count once they have said what they hold; every task has one answer."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from common.records import error_reply, holding_record, identify
from server.engines.flower import FlowerGrid, last_line
from server.grids import ENOUGH, UNKNOWN_SHARD, Node, Tasks

identify(run_id=1, node_id=1)

Life = Callable[[Message], Message | None]  # one node: its reply to a message, or silence

TRACEBACK = """\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=1)
  File "app.py", line 3, in train
\x1b[31mValueError\x1b[0m: the disk is gone

"""


class Engine(Grid):
    """An engine whose nodes answer by ``lives`` at the next pull; ids below 0 are refused."""

    def __init__(self, lives: dict[int, Life]) -> None:
        self.lives = lives
        self.tape: list[tuple[str, int]] = []
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self.lives)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        taken = []
        for message in messages:
            node_id = message.metadata.dst_node_id
            name = f"message-{len(self.tape)}"
            message.metadata.__dict__["_message_id"] = name  # as Flower's own engines do
            self.tape.append((message.metadata.message_type, node_id))
            if node_id >= 0:
                taken.append(name)
                if (reply := self.lives[node_id](message)) is not None:
                    self._replies[name] = reply
        return taken

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(name) for name in list(message_ids) if name in self._replies]

    def send_and_receive(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("FlowerGrid looks for replies itself")

    create_message = set_run = run = send_and_receive  # type: ignore[assignment]


def holds(shard: int, own_examples: int = 0) -> Life:
    return lambda message: Message(holding_record(shard, own_examples), reply_to=message)


def says(content: RecordDict) -> Life:
    return lambda message: Message(content, reply_to=message)


def fails(reason: str) -> Life:
    return lambda message: Message(Error(code=2, reason=reason), reply_to=message)


def silent(message: Message) -> None:
    """A node that is listed and dead."""


def tasks(*node_ids: int) -> list[Message]:
    content = RecordDict({"arrays": ArrayRecord({"weight": Array(np.zeros(2, np.float32))})})
    return [Message(content, node_id, "train") for node_id in node_ids]


def test_nodes_are_asked_once_and_named_and_ordered_by_their_shards() -> None:
    engine = Engine({11: holds(3), 7: holds(0), 9: holds(-1, 250)})
    grid = FlowerGrid(engine)
    nodes = [Node(9, "node-9", -1, 250), Node(7, "shard-0", 0), Node(11, "shard-3", 3)]
    assert grid.nodes() == nodes
    assert grid.nodes() == nodes
    assert sorted(engine.tape) == [("query", 7), ("query", 9), ("query", 11)]


def test_a_node_that_does_not_answer_is_not_there_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine({7: silent, 8: holds(1)})
    grid = FlowerGrid(engine)
    assert [node.name for node in grid.nodes()] == ["shard-1"]
    assert grid.nodes() == grid.nodes()
    assert engine.tape == [("query", 7), ("query", 8)]

    monkeypatch.setattr("server.engines.flower.ASK_AGAIN_SECONDS", 0.0)
    engine.lives[7] = holds(0)
    assert [node.name for node in grid.nodes()] == ["shard-0", "shard-1"]


def test_a_node_that_left_frees_its_name() -> None:
    engine = Engine({7: holds(0)})
    grid = FlowerGrid(engine)
    assert [node.node_id for node in grid.nodes()] == [7]
    engine.lives = {8: holds(0)}
    assert [(node.node_id, node.name) for node in grid.nodes()] == [(8, "shard-0")]


def test_two_nodes_on_one_shard_have_two_names() -> None:
    grid = FlowerGrid(Engine({7: holds(2), 8: holds(2)}))
    assert [(node.name, node.shard) for node in grid.nodes()] == [("node-8", 2), ("shard-2", 2)]


@pytest.mark.parametrize(
    "life",
    [
        fails("no such partition"),
        says(RecordDict()),
        says(RecordDict({"holding": ConfigRecord({"shard": "0", "own-examples": 0})})),
        says(RecordDict({"holding": ConfigRecord({"shard": -2, "own-examples": 0})})),
        says(RecordDict({"holding": ConfigRecord({"shard": 0, "own-examples": -1})})),
    ],
)
def test_a_node_that_says_something_else_is_there_with_an_unknown_shard(life: Life) -> None:
    assert FlowerGrid(Engine({7: life})).nodes() == [Node(7, "node-7", UNKNOWN_SHARD)]


def test_every_task_has_one_answer() -> None:
    update = RecordDict({"arrays": ArrayRecord({"weight": Array(np.ones(2, np.float32))})})
    grid = FlowerGrid(Engine({1: says(update), 2: silent, 3: fails(TRACEBACK), -4: silent}))
    answers = grid.exchange(Tasks("run/1", tasks(1, 2, 3, -4), deadline_seconds=0.1))
    by_node = {answer.node_id: answer for answer in answers}
    assert len(answers) == 4
    size = 128 + 8  # bytes: NumPy's header and two floats
    assert (by_node[1].bytes_down, by_node[1].bytes_up, by_node[1].reason) == (size, size, "")
    assert by_node[1].reply is not None
    assert by_node[1].reply.content.array_records["arrays"]["weight"].numpy().tolist() == [1.0, 1.0]
    assert (by_node[2].reply, by_node[2].reason, by_node[2].bytes_up) == (None, "no update within 0.1 s", 0)
    assert by_node[3].reply is not None
    assert by_node[3].reply.error.reason == "ValueError: the disk is gone"
    assert (by_node[-4].reply, by_node[-4].reason) == (None, "the engine did not take the task")


def test_enough_updates_end_the_exchange_and_an_error_is_none() -> None:
    grid = FlowerGrid(Engine({1: fails(TRACEBACK), 2: silent, 3: says(RecordDict())}))
    answers = grid.exchange(Tasks("run/1", tasks(1, 2, 3), deadline_seconds=60.0, num_enough=1))
    assert {answer.node_id: (answer.reply is None, answer.reason) for answer in answers} == {
        1: (False, ""),
        2: (True, ENOUGH),
        3: (False, ""),
    }


def test_a_reply_to_another_task_is_passed_over() -> None:
    def forges(message: Message) -> Message:
        reply = error_reply(message, "not mine")
        reply.metadata.__dict__["_reply_to_message_id"] = "message-99"
        return reply

    [answer] = FlowerGrid(Engine({1: forges})).exchange(Tasks("run/1", tasks(1), deadline_seconds=0.05))
    assert answer.reason == "no update within 0.05 s"


@pytest.mark.parametrize(
    ("reason", "line"),
    [(TRACEBACK, "ValueError: the disk is gone"), ("", "no reason was given"), (None, "no reason was given")],
)
def test_the_last_line_of_a_reason(reason: str | None, line: str) -> None:
    assert last_line(reason) == line
