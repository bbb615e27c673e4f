"""Updates that nodes still owe after their round: who may pay which, and what has come, one of a node at most."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message, RecordDict

from common import fleet_pb2 as pb
from common.records import TRAIN
from common.wire import from_update
from server.grids import Answer, Debt, Node


@dataclass(frozen=True)
class Paid:
    """An update that came for a debt, and how long after its task went out."""

    debt: Debt
    reply: Message
    seconds: float
    size: int  # bytes

    def answer(self) -> Answer:
        """In the form of an answer in time."""
        return Answer(self.debt.node_id, self.reply, "", self.seconds, 0, self.size)


class Debts:
    """Used from the link's thread alone; ``asyncio``'s clock tells the time."""

    def __init__(self) -> None:
        self.are_kept = False  # until somebody asks for it, what is late has expired
        self._owed: dict[str, Debt] = {}  # by task
        self._since: dict[str, float] = {}  # when the task went out
        self._paid: dict[int, Paid] = {}  # by node: what waits for the next average

    def add(self, debt: Debt) -> bool:
        """From now on it may be paid; whether it is new."""
        if debt.task in self._owed:
            return False
        self._owed[debt.task] = debt
        self._since[debt.task] = asyncio.get_running_loop().time() - debt.seconds
        return True

    def of(self, node: Node) -> list[Debt]:
        """What the node owes and has not paid."""
        paid = self._paid.get(node.node_id)
        owed = [debt for debt in self._owed.values() if debt.node_id == node.node_id]
        return [debt for debt in owed if not (paid and paid.debt.task == debt.task)]

    def take(self, node: Node, update: pb.Update, size: int) -> str:
        """Keep a payment of ``size`` bytes for the next average; why not, or ''."""
        debt, paid = self._owed.get(update.task), self._paid.get(node.node_id)
        if debt is None or debt.node_id != node.node_id:
            return "this task is not open (any more)"
        if paid:
            return (
                "an update for it is in already"
                if paid.debt.task == debt.task
                else "another late update of this node waits"
            )
        seconds = asyncio.get_running_loop().time() - self._since[debt.task]
        reply = from_update(update, Message(RecordDict(), node.node_id, TRAIN))
        self._paid[node.node_id] = Paid(debt, reply, seconds, size)
        return ""

    def collect(self) -> list[Paid]:
        """Take out what was paid; these debts are no more."""
        paid = list(self._paid.values())
        self._paid.clear()
        for each in paid:
            self._forget(each.debt.task)
        return paid

    def replace(self, debts: Iterable[Debt]) -> tuple[list[Debt], list[Debt]]:
        """Let exactly ``debts`` be owed; returns those that are new, and those that are no more."""
        wanted = {debt.task: debt for debt in debts}
        gone = [debt for task, debt in self._owed.items() if task not in wanted]
        for debt in gone:
            self._forget(debt.task)
            if (paid := self._paid.get(debt.node_id)) and paid.debt.task == debt.task:
                del self._paid[debt.node_id]  # it came a moment too late: its verdict tells the node
        return [debt for debt in wanted.values() if self.add(debt)], gone

    def _forget(self, task: str) -> None:
        del self._owed[task], self._since[task]
