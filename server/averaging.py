"""FedAvg's average of all weights at once: the sums of Flower's FedAvg in their order, to the bit."""

from collections.abc import Sequence

import numpy as np
from flwr.serverapp import strategy as flower

from common import flat

# The strategies whose average it is: the proximal term of FedProx (Li et al. 2020) travels in the tasks.
PLAIN = (flower.FedAvg, flower.FedProx)


def mean(updates: Sequence[tuple[flat.ArrayRecord, float]]) -> flat.ArrayRecord:
    """The mean of weights of one form, each of which counts for so many examples (McMahan et al. 2017)."""
    total = sum(counts for _, counts in updates)
    form, vector = updates[0][0].form, updates[0][0].vector
    average, term = np.empty_like(vector), np.empty_like(vector)
    for place, (weights, counts) in enumerate(updates):
        np.multiply(weights.vector, counts / total, out=term if place else average)
        if place:
            average += term
    return flat.ArrayRecord(form, average)
