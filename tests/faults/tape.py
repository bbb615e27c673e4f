"""What watches a fleet from the outside: every task that is issued, how long exchanges take, who can be reached."""

import time
from collections.abc import Iterable

from flwr.app import ConfigRecord, Message, RecordDict

from common.arrays import to_record
from server.fleet import Fleet
from server.grids import Answer, Debt, Node, NodeGrid, Tasks, Verdict
from server.link.roster import node_id
from tests.faults.light_nodes import light_state
from tests.link_twins import PATIENCE_SECONDS


class Silent:
    """A listener that nobody reads."""

    def joined(self, node: str, shard: int, address: str) -> None: ...

    def left(self, node: str, reason: str) -> None: ...

    def progress(self, node: str, fraction: float) -> None: ...

    def delivered(self, node: str) -> None: ...

    def notice(self, text: str) -> None: ...


class Tape(NodeGrid):
    """A grid in front of a fleet that writes down every task which is issued, and how long each exchange took."""

    takes_late = True

    def __init__(self, fleet: Fleet, names: Iterable[str]) -> None:
        self._fleet = fleet
        self._names = {node_id(name): name for name in names}
        self.issued: list[str] = []
        self.seconds: list[float] = []

    def nodes(self) -> list[Node]:
        return self._fleet.nodes()

    def busy(self) -> list[Node]:
        return self._fleet.busy()

    def wait_for_change(self, seconds: float) -> None:
        self._fleet.wait_for_change(seconds)

    def owe(self, debts: Iterable[Debt]) -> None:
        self._fleet.owe(debts)

    def late(self) -> dict[str, Answer]:
        return self._fleet.late()

    def settle(self, verdicts: Iterable[Verdict]) -> None:
        self._fleet.settle(verdicts)

    def exchange(self, tasks: Tasks) -> list[Answer]:
        start = time.monotonic()
        answers = list(self._fleet.exchange(tasks))
        self.seconds.append(time.monotonic() - start)
        asked = [message.metadata.dst_node_id for message in tasks.messages]
        standing_by = {message.metadata.dst_node_id for message in tasks.reserve.messages}
        asked += [answer.node_id for answer in answers if answer.node_id in standing_by]
        self.issued += [f"{tasks.round_name}/{self._names[node]}" for node in asked]
        return answers

    def ask(self, node_ids: Iterable[int]) -> set[int]:
        """Which of these nodes answer when they are asked for something that light nodes cannot do."""
        task = RecordDict({"arrays": to_record(light_state()), "config": ConfigRecord({})})
        messages = [Message(task, node, "evaluate") for node in node_ids]
        answers = self._fleet.exchange(Tasks("links", messages, PATIENCE_SECONDS))
        return {answer.node_id for answer in answers if answer.reply is not None}
