"""Any Grid of Flower's own engines (SuperLink, Ray) as a NodeGrid."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.errors import WireError
from common.records import error_reply, read_holding
from server.grids import ENOUGH, UNKNOWN_SHARD, Answer, Node, NodeGrid, Tasks, num_bytes

ASK_AGAIN_SECONDS = 60.0  # a question to a node that died is lost: Flower does not redeliver
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.02, 1.0  # between two looks for replies; each is a request to a SuperLink
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class FlowerGrid(NodeGrid):
    """A Grid whose nodes are asked what they hold, for the engine does not know.

    A node counts as present once it has answered: one that is listed but dead holds up no round.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._known: dict[int, Node] = {}
        self._questions: dict[str, tuple[Message, float]] = {}  # by message id; with the time of asking

    def nodes(self) -> list[Node]:
        """Every connected node that has said what it holds, in node order."""
        present = set(self._grid.get_node_ids())
        self._known = {node_id: node for node_id, node in self._known.items() if node_id in present}
        self._ask(present)
        for question, reply in self._replies({name: asked for name, (asked, _) in self._questions.items()}):
            del self._questions[question.metadata.message_id]
            if question.metadata.dst_node_id in present:
                self._meet(question.metadata.dst_node_id, reply)
        return sorted(self._known.values(), key=lambda node: node.order)

    def exchange(self, tasks: Tasks) -> list[Answer]:
        """Let the engine carry the messages; bytes are those of the arrays, for it counts none."""
        start = time.monotonic()
        asked = self._push(tasks.messages)
        answers = [
            Answer(message.metadata.dst_node_id, None, "the engine did not take the task", 0.0, 0, 0)
            for message in tasks.messages
            if message.metadata.message_id not in asked
        ]
        pause = FIRST_LOOK_SECONDS
        reason = f"no update within {tasks.deadline_seconds:g} s"
        while asked and (left := start + tasks.deadline_seconds - time.monotonic()) > 0:
            for message, reply in self._replies(asked):
                del asked[message.metadata.message_id]
                answers.append(_answer(message, reply, "", start))
            if 0 < tasks.num_enough <= sum(a.reply is not None and not a.reply.has_error() for a in answers):
                reason = ENOUGH
                break
            if asked:
                time.sleep(min(pause, left))
                pause = min(1.5 * pause, LONGEST_LOOK_SECONDS)
        return answers + [_answer(message, None, reason, start) for message in asked.values()]

    def _ask(self, present: set[int]) -> None:
        now = time.monotonic()
        self._questions = {
            name: (question, asked)
            for name, (question, asked) in self._questions.items()
            if now - asked < ASK_AGAIN_SECONDS and question.metadata.dst_node_id in present
        }
        waited_for = {question.metadata.dst_node_id for question, _ in self._questions.values()}
        new = sorted(present - set(self._known) - waited_for)
        pushed = self._push([Message(RecordDict(), node_id, "query") for node_id in new])
        self._questions |= {name: (question, now) for name, question in pushed.items()}

    def _meet(self, node_id: int, reply: Message) -> None:
        try:
            shard, own_examples = read_holding(reply.content) if reply.has_content() else (UNKNOWN_SHARD, 0)
        except WireError:
            shard, own_examples = UNKNOWN_SHARD, 0  # it will be given a task all the same, and its answer says why
        name, names = f"shard-{shard}", {node.name for node in self._known.values()}
        if shard < 0 or name in names:
            name = f"node-{node_id}"
        self._known[node_id] = Node(node_id, name, shard, own_examples)

    def _push(self, messages: Sequence[Message]) -> dict[str, Message]:
        """Hand ``messages`` to the engine; returns those it took, by their ids."""
        taken = set(self._grid.push_messages(messages)) if messages else set()
        return {name: message for message in messages if (name := message.metadata.message_id) in taken}

    def _replies(self, asked: dict[str, Message]) -> Iterator[tuple[Message, Message]]:
        """(message, reply) of those that have come; errors have one line of reason."""
        replies: Iterable[Message] = self._grid.pull_messages(list(asked)) if asked else ()
        for reply in replies:
            if message := asked.get(reply.metadata.reply_to_message_id):
                yield message, error_reply(message, last_line(reply.error.reason)) if reply.has_error() else reply


def last_line(reason: str | None) -> str:
    """What a traceback comes to: its last line that says something, without colours."""
    lines = [line.strip() for line in _ANSI.sub("", reason or "").splitlines()]
    return next((line for line in reversed(lines) if line), "no reason was given")


def _answer(message: Message, reply: Message | None, reason: str, start: float) -> Answer:
    received = 0 if reply is None else num_bytes(reply)
    node_id, seconds = message.metadata.dst_node_id, time.monotonic() - start
    return Answer(node_id, reply, reason, seconds, num_bytes(message), received)
