"""The tasks of an exchange on the link: issued, issued again, taken in, cancelled; each ends with one answer."""

import asyncio
from collections.abc import Mapping, Sequence

from flwr.app import Message

from common import fleet_pb2 as pb
from common.wire import shared_parts, to_task
from server.assignment import Assignment
from server.grids import ENOUGH, Node, Seen
from server.session import Session


class OpenTasks:
    """Used from the link's thread alone."""

    def __init__(self, sessions: Mapping[int, Session], rejoin_seconds: float) -> None:
        """``sessions`` are the nodes that are here, by node id: a view, not a copy."""
        self._sessions = sessions
        self._rejoin_seconds = rejoin_seconds
        self._open: dict[str, Assignment] = {}  # by name, until the exchange is over

    async def exchange(
        self,
        names: Mapping[int, str],
        messages: Sequence[Message],
        deadline_seconds: float,
        num_enough: int,
        reserve: list[Message],
    ) -> list[Assignment]:
        """Issue tasks and wait until all have ended; see ``NodeGrid.exchange``.

        Args:
            names: of the tasks, by node id.
            messages: at most one for each node.
            deadline_seconds: counted from now.
            num_enough: how many updates end the exchange; 0 = all.
            reserve: messages that may be sent in the place of those to nodes that vanish; it is used up.
        """
        clock = asyncio.get_running_loop().time  # monotonic
        deadline = clock() + deadline_seconds
        shared: dict[tuple[int, int], bytes] = {}  # by what messages have in common
        assignments = [self._issue(names, message, deadline, shared) for message in messages]
        waited_for, num_updates = {assignment.outcome: assignment for assignment in assignments}, 0
        needs_each = bool(num_enough or reserve)  # to wait for one after another costs more, with many nodes
        while waited_for and (left := deadline - clock()) > 0:
            done, _ = await asyncio.wait(
                waited_for, timeout=left, return_when="FIRST_COMPLETED" if needs_each else "ALL_COMPLETED"
            )
            ended = [waited_for.pop(outcome) for outcome in done]
            num_updates += sum(assignment.is_updated for assignment in ended)
            if num_enough and num_updates >= num_enough:
                break
            for message in self._free(reserve, sum(assignment.is_forfeited for assignment in ended)):
                assignments.append(self._issue(names, message, deadline, shared))
                waited_for[assignments[-1].outcome] = assignments[-1]
        is_enough = bool(num_enough) and num_updates >= num_enough
        self._close(assignments, *_ends(is_enough, deadline_seconds))
        return assignments

    def is_training(self, task: str) -> bool:
        """Whether that is an open task that asks for an update."""
        return task in self._open and self._open[task].is_training

    def issue_again(self, session: Session) -> None:
        """The node has joined anew: give it what it had not answered."""
        for assignment in self._of(session.node):
            assignment.keep()
            session.send(assignment.parcel())

    def forfeit_later(self, node: Node, reason: str) -> None:
        """The node's link is gone, for that reason."""
        for assignment in self._of(node):
            assignment.forfeit_after(self._rejoin_seconds, reason)

    def take(self, node: Node, update: pb.Update, size: int, seen: Seen) -> str:
        """Settle a task on its node's answer of ``size`` bytes; why not, or ''. ``seen`` is how it came to it."""
        assignment = self._open.get(update.task)
        if assignment is None or assignment.node_id != node.node_id:
            return "this task is not open (any more)"
        if assignment.end((update, size), seen):
            return ""
        return "this task is not open (any more)" if assignment.is_forfeited else "an update for it is in already"

    def _of(self, node: Node) -> list[Assignment]:
        return [a for a in self._open.values() if a.node_id == node.node_id and not a.outcome.done()]

    def _issue(
        self, names: Mapping[int, str], message: Message, deadline: float, shared: dict[tuple[int, int], bytes]
    ) -> Assignment:
        """Send a task, named by its node's id, to its node; ``shared`` are the parcels so far."""
        node_id = message.metadata.dst_node_id
        parts = shared_parts(message)
        parcel = shared[parts] = shared.get(parts) or _shared_parcel(message)
        assignment = Assignment(names[node_id], message, parcel, deadline)
        self._open[assignment.task] = assignment
        if node_id in self._sessions:
            self._sessions[node_id].send(assignment.parcel())
        else:
            assignment.forfeit_after(self._rejoin_seconds, "it left")
        return assignment

    def _free(self, reserve: list[Message], number: int) -> list[Message]:
        """Take the next ``number`` messages out of ``reserve`` whose nodes are here and free."""
        taken: list[Message] = []
        while reserve and len(taken) < number:
            message = reserve.pop(0)
            session = self._sessions.get(message.metadata.dst_node_id)
            if session and session.free:
                taken.append(message)
        return taken

    def _close(self, assignments: Sequence[Assignment], reason: str, told: str) -> None:
        """The exchange is over: what has not ended does so for ``reason``, and its node is told to stop."""
        for assignment in assignments:
            del self._open[assignment.task]
            if assignment.end(reason) and assignment.node_id in self._sessions:
                self._sessions[assignment.node_id].cancel(assignment.task, told)


def _ends(is_enough: bool, deadline_seconds: float) -> tuple[str, str]:
    """Why open tasks end with an exchange: for the ledger, and for the node."""
    return (ENOUGH, ENOUGH) if is_enough else (f"no update within {deadline_seconds:g} s", "the round's time is up")


def _shared_parcel(message: Message) -> bytes:
    return pb.ToNode(task=to_task(message)).SerializeToString()
