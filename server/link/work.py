"""What a node works on, by its own words, and whether it is free: it may be here and yet hang in a former task."""

import asyncio
import math
from dataclasses import replace

from server.grids import Seen


class Work:
    """That of one link, used from the link's thread alone."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._past = ""  # a task whose round is over and which the node has not dropped or done yet
        self._is_cancelled, self._is_told = False, False  # whether it is to drop it, and that word has gone out
        self._in_hand, self._seen = "", Seen()  # the last task that the node said it works on
        self.is_due = False  # it has said that it is done, so an update comes next

    @property
    def is_free(self) -> bool:
        """Whether the node can take a task."""
        return not self._past

    @property
    def outlasting(self) -> str:
        """The task that the node goes on with though its round is over; '' without one."""
        return "" if self._is_cancelled else self._past

    def outlasts(self, task: str) -> None:
        """The node may go on with a task after its round; until it works on it no more, it is not free."""
        self._past, self._is_cancelled, self._is_told = task, False, False

    def cancel(self, task: str) -> None:
        """The node is to drop a task; until it says that it has, it is not free."""
        self._past, self._is_cancelled, self._is_told = task, True, False

    def told_to_drop(self, task: str) -> None:
        """The word to drop a task has gone out."""
        self._is_told = self._is_told or task == self._past

    def says(self, task: str, since_seconds: float = 0.0) -> None:
        """The node says what it works on ('' = nothing), and how long ago that came to it."""
        # On a slow link a node that works on nothing may not have the task yet.
        if task != self._past and (task or self._is_told or self._in_hand == self._past):
            self._past = ""
        now = self._loop.time()
        if task and task != self._in_hand:
            self._in_hand, self._seen = task, Seen(taken_at=now - since_seconds)
        elif not task and math.isnan(self._seen.done_at):
            self._seen = replace(self._seen, done_at=now)
            self.is_due = bool(self._in_hand)

    def answers(self, task: str) -> Seen:
        """The node's answer to a task is in: when it was heard to take it and to be done with it, on this link."""
        seen = self._seen if task == self._in_hand else Seen()
        if task == self._past:
            self._past = ""
        self.says("")
        self.is_due = False
        return seen
