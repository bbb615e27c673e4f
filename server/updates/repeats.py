"""Knows an update that comes again: what the nodes sent in the last rounds, by its fingerprint."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from common.models import State, weights_sha256
from server.updates.screening import Fault, Screened

ROUNDS_KEPT = 10  # older ones are forgotten, so that memory does not grow with the run


@dataclass(frozen=True)
class _Sent:
    """Who sent an update, and to which model it was the answer."""

    node: str
    round_number: int
    model: int  # which one: it counts how often the model has changed


class Repeats:
    """The updates of the last rounds, kept as digests."""

    def __init__(self) -> None:
        self._sent: dict[str, _Sent] = {}
        self._model: State = {}
        self._num_models = 0

    def stale(self, number: int, updates: Sequence[Screened], reference: State) -> dict[int, str]:
        """Look for updates of earlier rounds among those of round ``number``, and remember these.

        Training from another model never ends in the same weights, bit for bit. Two things look alike and are not
        stale: a node that learned nothing sends the model itself, and after a round without an average the same
        model is trained again.

        Returns:
            ``{node_id: reason}`` of those to reject.
        """
        model = self._which(reference)
        again = [update for update in updates if update.said in self._sent]
        unchanged = weights_sha256(reference) if again else ""
        known = {update.node.node_id: self._sent[update.said] for update in again if update.sha256 != unchanged}
        self._sent = {key: sent for key, sent in self._sent.items() if number - sent.round_number < ROUNDS_KEPT}
        for update in updates:
            self._sent.setdefault(update.said, _Sent(update.node.name, number, model))
        return {
            node_id: Fault(f"stale: the same update as that of node {sent.node} in round {sent.round_number}")
            for node_id, sent in known.items()
            if sent.model != model
        }

    def _which(self, model: State) -> int:
        """The number of the model of a round: another one than that of the round before is a new one."""
        former, self._model = self._model, model
        if former.keys() != model.keys() or not all(torch.equal(value, former[name]) for name, value in model.items()):
            self._num_models += 1
        return self._num_models
