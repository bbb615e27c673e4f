"""Knows an update that comes again: what the nodes sent in the last rounds, by its fingerprint."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.updates.screening import Fault, Screened

ROUNDS_KEPT = 10  # older ones are forgotten, so that memory does not grow with the run


@dataclass(frozen=True)
class _Sent:
    """Who sent an update, and to which model it was the answer."""

    node: str
    round_number: int
    model: int  # its fingerprint


class Repeats:
    """The updates of the last rounds, kept as fingerprints."""

    def __init__(self) -> None:
        self._sent: dict[int, _Sent] = {}

    def stale(self, number: int, updates: Sequence[Screened], model: int) -> dict[int, str]:
        """Look for updates of earlier rounds among those of round ``number``, and remember these.

        Training from another model never ends in the same weights, bit for bit. Two things look alike and are not
        stale: a node that learned nothing sends the model that it was given, perhaps late, and where the model is one
        that was trained before, as after a round without an average, the same answer is as good as it was then.

        Args:
            number: 1..
            updates: that are sound in themselves.
            model: fingerprint of the one that the round sent out.

        Returns:
            ``{node_id: reason}`` of those to reject.
        """
        learned = [update for update in updates if update.norm]
        known = {update.node.node_id: self._sent[update.said] for update in learned if update.said in self._sent}
        self._sent = {said: sent for said, sent in self._sent.items() if number - sent.round_number < ROUNDS_KEPT}
        for update in learned:
            self._sent.setdefault(update.said, _Sent(update.node.name, number, model))
        return {
            node_id: Fault(f"stale: the same update as that of node {sent.node} in round {sent.round_number}")
            for node_id, sent in known.items()
            if sent.model != model
        }
