"""The tasks of an exchange on the link: issued, issued again, taken in, cancelled; each ends with one answer."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from flwr.app import Message

from common import fleet_pb2 as pb
from common.wire import shared_parts
from server.grids import ENOUGH, Debt, Node, Seen, Tasks
from server.link.assignment import Assignment, Shared
from server.link.debts import Debts
from server.link.session import Session


class OpenTasks:
    """Used from the link's thread alone."""

    def __init__(self, sessions: Mapping[int, Session], rejoin_seconds: float) -> None:
        """``sessions`` are the nodes that are here, by node id: a view, not a copy."""
        self._sessions = sessions
        self._rejoin_seconds = rejoin_seconds
        self._open: dict[str, Assignment] = {}  # by name, until the exchange is over
        self.debts = Debts()

    async def exchange(
        self,
        names: Mapping[int, str],
        tasks: Tasks,
        heard: Callable[[Assignment], None] = lambda _: None,
    ) -> list[Assignment]:
        """Issue tasks and wait until all have ended; see ``NodeGrid.exchange``.

        Args:
            names: of the tasks, by node id.
            tasks: what is asked.
            heard: told of each task once it has ended.
        """
        clock, standing_by = asyncio.get_running_loop().time, list(tasks.reserve.messages)
        deadline = clock() + tasks.deadline_seconds
        shared: dict[tuple[int, int], Shared] = {}  # by what messages have in common
        assignments = [self._issue(names, message, deadline, shared, heard) for message in tasks.messages]
        waited_for, num_updates = {assignment.outcome: assignment for assignment in assignments}, 0
        needs_each = bool(tasks.num_enough or standing_by)  # to wait for one after another costs more, with many nodes
        while waited_for and (left := deadline - clock()) > 0:
            done, _ = await asyncio.wait(
                waited_for, timeout=left, return_when="FIRST_COMPLETED" if needs_each else "ALL_COMPLETED"
            )
            ended = [waited_for.pop(outcome) for outcome in done]
            num_updates += sum(assignment.is_updated for assignment in ended)
            if 0 < tasks.num_enough <= num_updates:
                break
            for message in self._free(standing_by, sum(assignment.is_forfeited for assignment in ended)):
                try:
                    async with asyncio.timeout_at(deadline):
                        await asyncio.to_thread(tasks.reserve.before, message.metadata.dst_node_id)
                except TimeoutError:  # a disk that takes longer does not hold up the end of the round
                    break
                assignments.append(self._issue(names, message, deadline, shared, heard))
                waited_for[assignments[-1].outcome] = assignments[-1]
        is_enough = 0 < tasks.num_enough <= num_updates
        self._close(assignments, ENOUGH if is_enough else f"no update within {tasks.deadline_seconds:g} s")
        return assignments

    def is_training(self, task: str) -> bool:
        """Whether that is an open task that asks for an update."""
        return task in self._open and self._open[task].is_training

    def issue_again(self, session: Session) -> None:
        """The node has joined anew: give it what it had not answered, and ask for what came too late for its round."""
        for assignment in self._of(session.node):
            if assignment.outcome.done():
                self._put_down(assignment)
            else:
                assignment.keep()
                session.send(assignment.parcel)
        for debt in self.debts.of(session.node):
            session.send(_reminder(debt))

    def owe(self, debts: Iterable[Debt]) -> None:
        """Take updates for exactly these tasks from now on; who works on another one is told to stop."""
        self.debts.are_kept = True
        new, gone = self.debts.replace(debts)
        for debt in new:
            if session := self._sessions.get(debt.node_id):
                session.send(_reminder(debt))
        for debt in gone:
            session = self._sessions.get(debt.node_id)
            if session and session.work.outlasting == debt.task:
                session.cancel(debt.task, "its update would come too late")

    def forfeit_later(self, node: Node, reason: str) -> None:
        """The node's link is gone, for that reason."""
        for assignment in self._of(node):
            if not assignment.outcome.done():
                assignment.forfeit_after(self._rejoin_seconds, reason)

    def take(self, node: Node, update: pb.Update, size: int, seen: Seen) -> str:
        """Settle a task on its node's answer of ``size`` bytes; why not, or ''. ``seen`` is how it came to it."""
        assignment = self._open.get(update.task)
        if assignment is None or assignment.node_id != node.node_id:
            return self.debts.take(node, update, size)
        if assignment.end((update, size), seen):
            return ""
        return self.debts.take(node, update, size) if assignment.is_forfeited else "an update for it is in already"

    def _of(self, node: Node) -> list[Assignment]:
        return [assignment for assignment in self._open.values() if assignment.node_id == node.node_id]

    def _issue(
        self,
        names: Mapping[int, str],
        message: Message,
        deadline: float,
        shared: dict[tuple[int, int], Shared],
        heard: Callable[[Assignment], None],
    ) -> Assignment:
        """Send a task, named by its node's id, to its node; ``shared`` are the parcels so far."""
        node_id = message.metadata.dst_node_id
        parts = shared_parts(message)
        parcel = shared[parts] = shared.get(parts) or Shared.of(message)
        assignment = Assignment(names[node_id], message, parcel, deadline)
        assignment.outcome.add_done_callback(lambda _: heard(assignment))
        self._open[assignment.task] = assignment
        if node_id in self._sessions:
            self._sessions[node_id].send(assignment.parcel)
        else:
            assignment.forfeit_after(self._rejoin_seconds, "it left")
        return assignment

    def _free(self, standing_by: list[Message], number: int) -> list[Message]:
        """Take the next ``number`` messages out of ``standing_by`` whose nodes are here and free."""
        taken: list[Message] = []
        while standing_by and len(taken) < number:
            message = standing_by.pop(0)
            session = self._sessions.get(message.metadata.dst_node_id)
            if session and session.work.is_free:
                taken.append(message)
        return taken

    def _close(self, assignments: Sequence[Assignment], reason: str) -> None:
        """The exchange is over: what has not ended does so for ``reason``.

        Nobody waits for its node, which is told to stop, unless the update may be late: then it may go on.
        """
        for assignment in assignments:
            del self._open[assignment.task]
            is_at_work, session = assignment.end(reason), self._sessions.get(assignment.node_id)
            is_owed = self._put_down(assignment)
            if is_at_work and session and is_owed and reason != ENOUGH:
                session.work.outlasts(assignment.task)
            elif is_at_work and session:
                session.cancel(assignment.task, ENOUGH if reason == ENOUGH else "the round's time is up")

    def _put_down(self, assignment: Assignment) -> bool:
        """Whether the node may still pay, if it has not delivered."""
        if not (self.debts.are_kept and assignment.is_training and assignment.is_forfeited):
            return False
        self.debts.add(assignment.debt())
        return True


def _reminder(debt: Debt) -> pb.ToNode:
    return pb.ToNode(owed=pb.Owed(task=debt.task, model=debt.model))
