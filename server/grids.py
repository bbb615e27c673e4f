"""What every engine offers the round loop: nodes, and one exchange of tasks for answers.

``NodeGrid`` is Flower's ``Grid`` plus what a run needs to be told: which shard a node holds, what
an exchange cost, who did not answer and why. The link (``server.fleet``) and the simulation
(``server.simulation``) are NodeGrids; ``server.engines.flower`` makes one of any other Grid of Flower's.
"""

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from common import flat, npy
from common.contents import array_records
from server.memory import Plain

UNKNOWN_SHARD = -2
ENOUGH = "enough other updates were in (federation.over_selection)"  # why a task of an over-selected round expires


@dataclass(frozen=True)
class Node:
    """A machine that can take a task now."""

    node_id: int
    name: str
    shard: int  # its number; -1: the node's own data; -2: only its update will tell
    own_examples: int = 0  # how many examples it declared of its own data

    @property
    def order(self) -> tuple[int, str, int]:
        """Nodes are averaged in this order, on every engine."""
        return (self.shard, self.name, self.node_id)


@dataclass(frozen=True)
class Seen:
    """When the server saw what of a task, on its ``time.monotonic()``; nan where the engine cannot see it."""

    taken_at: float = math.nan  # the node said that it has the task
    done_at: float = math.nan  # the node said that it is done; the update follows
    ended_at: float = math.nan  # the update was in, or the task was given up


@dataclass(frozen=True)
class Answer:
    """What came of one task: a reply, or the reason why there is none."""

    node_id: int
    reply: Message | None
    reason: str  # why the task expired; empty with a reply
    seconds: float  # from the first byte out to the reply in
    bytes_down: int
    bytes_up: int
    seen: Seen = Seen()
    late_for: int = 0  # the earlier round whose task it answers; 0: that of the exchange


@dataclass(frozen=True)
class Debt:
    """A task whose round went on without its node, whose update may still come."""

    task: str
    node_id: int
    model: bytes  # what the task came with: see ``common.wire.model_digest``
    seconds: float  # since the task went out


@dataclass(frozen=True)
class Verdict:
    """What is told to a node about its update."""

    node_id: int
    task: str
    verdict: Literal["accepted", "rejected", "expired"]
    reason: str


@dataclass(frozen=True)
class Reserve:
    """Tasks for other nodes: the next one is sent when a node of an exchange has vanished for good."""

    messages: Sequence[Message] = ()
    # Told a node's id before its task goes out; where it takes until the exchange is over, the task does not.
    before: Callable[[int], None] = lambda _: None


@dataclass(frozen=True)
class Tasks:
    """The tasks of one exchange, and when it is over."""

    round_name: str  # RUN/ROUND, or RUN/ROUND/evaluate; with the node's name it names the task
    messages: Sequence[Message]  # at most one for each node
    deadline_seconds: float  # counted from when they go out
    num_enough: int = 0  # when so many replies without an error are in, the other tasks expire; 0: wait for all
    reserve: Reserve = Reserve()  # who takes the places of nodes that vanish


class NodeGrid(Grid):
    """A Flower Grid that knows its nodes and accounts for what it carries."""

    takes_late = False  # whether ``owe`` and ``late`` do anything

    @abstractmethod
    def nodes(self) -> list[Node]:
        """The nodes that can take a task now, in node order."""

    @abstractmethod
    def exchange(self, tasks: Tasks) -> Iterable[Answer]:
        """Send each message to its node and gather answers until all or enough are in, or time is up.

        An engine whose nodes are never late may wait for all, and one that cannot see that a node has vanished asks
        none of the reserve.

        Returns:
            One answer for each message that was sent, once, in the order in which they come: an engine that can gives
            the first ones while others are under way.

        Raises:
            Exception: what ``tasks.reserve.before`` raised, after the last answer; that task was not sent.
        """

    def busy(self) -> list[Node]:
        """Nodes that are here and cannot take a task yet, as far as the engine can tell."""
        return []

    def wait_for_change(self, seconds: float) -> None:
        """Sleep until ``nodes()`` may have changed, or ``seconds`` are over."""
        time.sleep(min(seconds, 0.2))

    def owe(self, debts: Iterable[Debt]) -> None:
        """Take updates for exactly these tasks after their round, from now on."""
        del debts

    def late(self) -> dict[str, Answer]:
        """The updates that came so since the last call, at most one of a node, by task; each is given once."""
        return {}

    def memory(self) -> dict[str, Plain]:
        """What nodes remember from task to task, if it is the server's to keep: real ones remember for themselves."""
        return {}

    def restore(self, memory: Mapping[str, Plain]) -> None:
        """Let nodes remember what ``memory`` gave; without an entry they remember nothing.

        Raises:
            RunDirectoryError: it did not give that.
        """
        del memory

    def settle(self, verdicts: Iterable[Verdict]) -> None:
        """Tell nodes what became of their updates; where an engine cannot, nothing happens."""
        del verdicts

    def get_node_ids(self) -> list[int]:
        """Ids of ``nodes()``."""
        return [node.node_id for node in self.nodes()]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Flower's form of ``exchange``: the replies alone."""
        answers = self.exchange(Tasks("flower/0", list(messages), timeout if timeout is not None else 10.0**9))
        return [answer.reply for answer in answers if answer.reply is not None]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Exchange ``messages`` and keep the replies for ``pull_messages``."""
        self._pulled = {str(reply.metadata.src_node_id): reply for reply in self.send_and_receive(messages)}
        return list(self._pulled)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that ``push_messages`` gathered, each once."""
        return [self._pulled.pop(message_id) for message_id in message_ids if message_id in self._pulled]

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node of this grid."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def set_run(self, run: Any) -> None:
        """Remember Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Any:
        """Flower's description of the run, as set."""
        return self._run


def num_bytes(message: Message) -> int:
    """Size of the arrays that ``message`` carries."""
    if not message.has_content():
        return 0
    return sum(map(_num_bytes, array_records(message.content).values()))


def _num_bytes(record: ArrayRecord) -> int:
    return record.num_bytes if isinstance(record, flat.ArrayRecord) else sum(map(npy.num_bytes, record.values()))
