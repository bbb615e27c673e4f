"""One issued task: what is sent to its node, and what came of it."""

import asyncio
from dataclasses import dataclass, replace
from typing import Self

from flwr.app import Message

from common import fleet_pb2 as pb
from common.records import TRAIN
from common.wire import from_update, model_digest, own_config, to_task
from server.grids import Answer, Debt, Seen

Delivered = tuple[pb.Update, int]  # an update, and its size in bytes


@dataclass(frozen=True)
class Shared:
    """What the tasks of an exchange have in common."""

    parcel: bytes  # the serialised task, less what is one node's own
    model: bytes  # the digest of its weights

    @classmethod
    def of(cls, message: Message) -> Self:
        """That of a task."""
        task = to_task(message)
        task.model = model_digest(task.weights)
        return cls(pb.ToNode(task=task).SerializeToString(), task.model)


class Assignment:
    """Used from the link's thread alone; ``answer`` from any, once it has ended."""

    def __init__(self, task: str, message: Message, shared: "Shared", deadline: float) -> None:
        self.task = task
        self.message = message
        self.shared = shared
        self.deadline = deadline  # on the loop's clock, as all times here
        self._loop = asyncio.get_running_loop()
        self._issued_at = self._loop.time()
        self.bytes_down = 0
        self.seen = Seen()
        self.outcome: asyncio.Future[str] = self._loop.create_future()  # why there is no update; '' = it is in
        self._reply: Message | None = None
        self._bytes_up = 0
        self.is_updated = False  # whether an update has come that is no error
        self.forfeit: asyncio.TimerHandle | None = None

    @property
    def node_id(self) -> int:
        """Whose task it is."""
        return self.message.metadata.dst_node_id

    @property
    def is_training(self) -> bool:
        """Whether an update is asked for; the other thing a node can do is to test the model."""
        return self.message.metadata.message_type == TRAIN

    @property
    def is_forfeited(self) -> bool:
        """Whether it has ended without an answer."""
        return self.outcome.done() and bool(self.outcome.result())

    def parcel(self) -> bytes:
        """The message to the node; protobuf merges concatenated messages, so the weights are encoded once."""
        left = max(0.0, self.deadline - self._loop.time())
        own = pb.Task(task=self.task, deadline_seconds=left, config=own_config(self.message))
        parcel = self.shared.parcel + pb.ToNode(task=own).SerializeToString()
        self.bytes_down += len(parcel)
        return parcel

    def end(self, outcome: Delivered | str, seen: Seen = Seen()) -> bool:  # noqa: B008 - a value
        """Settle on an update or a reason, once; whether this was the first. ``seen`` is how the node came to it."""
        if self.outcome.done():
            return False
        self.keep()
        now = self._loop.time()
        taken_at = min(max(seen.taken_at, self._issued_at), now)  # whatever the node says; nan stays nan
        self.seen = replace(seen, taken_at=taken_at, ended_at=now)
        if isinstance(outcome, str):
            self.outcome.set_result(outcome)
        else:
            update, self._bytes_up = outcome
            # Read at once: the gap that protobuf's copy leaves is a little too small for ours.
            self._reply, self.is_updated = from_update(update, self.message), not update.error
            self.outcome.set_result("")
        return True

    def forfeit_after(self, seconds: float, reason: str) -> None:
        """A node that is gone keeps its task for a while: it may be back, with the update or to start again."""
        text = f"{reason}, and it was not back within {seconds:g} s"
        self.forfeit = self._loop.call_later(seconds, self.end, text)

    def keep(self) -> None:
        """The node is back, or it no longer matters that it is not."""
        if self.forfeit:
            self.forfeit.cancel()

    def debt(self) -> Debt:
        """What its node owes, once it has ended without an answer."""
        return Debt(self.task, self.node_id, self.shared.model, self.seen.ended_at - self._issued_at)

    def answer(self) -> Answer:
        """What it came to."""
        reason, seconds = self.outcome.result(), self.seen.ended_at - self._issued_at
        return Answer(self.node_id, self._reply, reason, seconds, self.bytes_down, self._bytes_up, self.seen)
