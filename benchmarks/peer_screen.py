"""Fedge's checks of a round's updates, for a peer that has none: ``server.rounds``' screen, called as it calls it.

An update that is to be checked has to say what it is: it is packed into Flower's records first, as a node does it. The
sound ones go on to the peer's own mean.
"""

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict

from common import flat
from common.models import State, own_copy
from common.records import identify
from server.grids import Node
from server.incoming import Origin
from server.updates.fingerprint import fingerprint
from server.updates.repeats import Repeats
from server.updates.screening import Screen, Screened


class PeerScreen:
    """One for a run; it takes the updates of one round after another."""

    def __init__(self, screen: Screen) -> None:
        identify(0, 0)
        self._screen = screen
        self._repeats = Repeats()
        self._updates: list[Screened] = []
        self._number = 0

    def begin(self, state: State) -> None:
        """A round begins with this global model, which is copied: peers train in place."""
        self._number += 1
        self._origin = Origin.of(own_copy(state))
        self._task = Message(RecordDict(), 1, "train")

    def take(self, client: int, weights: flat.Vector, num_examples: int) -> None:
        """Check what ``client`` sent: all its weights, one after another.

        Raises:
            Rejected: it is of no use.
        """
        said: dict[str, int | float | list[int] | list[float]] = {
            "num-examples": num_examples, "train-loss": 2.3, "shard": client, "fit-seconds": 0.0, "threads": 1,
        }  # fmt: skip
        content = RecordDict({"arrays": flat.ArrayRecord(self._origin.form, weights), "metrics": MetricRecord(said)})
        reply = Message(content, reply_to=self._task)
        node = Node(client + 1, f"peer-{client}", client)
        self._updates.append(self._screen.check(reply, node, self._origin))

    @property
    def start(self) -> flat.Vector:
        """The weights that the round began with."""
        return self._origin.vector

    def end(self) -> None:
        """Hold the round's updates against each other and against those of former rounds.

        Raises:
            AssertionError: one is not what an honest client sends.
        """
        model = fingerprint(self._origin.vector)
        rejected = self._repeats.stale(self._number, self._updates, model) | self._screen.compare(self._updates)
        assert not rejected, rejected
        self._updates = []


def one_vector(state: State) -> flat.Vector:
    """All weights, one after another."""
    return np.concatenate([value.detach().numpy().reshape(-1) for value in state.values()])
