"""Flower's FedAvg and FedProx with all weights averaged at once: their sums in their order, to the bit."""

from collections.abc import Iterable

import numpy as np
from flwr.app import Message, MetricRecord
from flwr.serverapp import strategy as flower

from common import flat


class FedAvg(flower.FedAvg):
    """McMahan et al. (2017), weighted by examples."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[flat.ArrayRecord | None, MetricRecord | None]:
        """The average of screened updates; metrics are averaged by whoever reports them."""
        del server_round
        updates = [(_weights(reply), self._num_examples(reply)) for reply in replies]
        total = sum(num_examples for _, num_examples in updates)
        average, term = np.zeros((2, len(updates[0][0].vector)), np.float32)
        for place, (weights, num_examples) in enumerate(updates):
            np.multiply(weights.vector, num_examples / total, out=term if place else average)
            if place:
                average += term
        return flat.ArrayRecord(updates[0][0].form, average), None

    def _num_examples(self, reply: Message) -> float:
        num_examples = reply.content["metrics"][self.weighted_by_key]
        assert isinstance(num_examples, int | float), "the screen lets nothing else through"
        return num_examples


class FedProx(FedAvg, flower.FedProx):
    """Li et al. (2020): the average is FedAvg's, the proximal term travels in the tasks."""


def _weights(reply: Message) -> flat.ArrayRecord:
    weights = reply.content["arrays"]
    assert isinstance(weights, flat.ArrayRecord), "the screen lets nothing else through"
    return weights
