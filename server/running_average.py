"""The running average of the global models of a run: steadier than the newest of them, and tested in its place.

Polynomial-decay averaging (Shamir & Zhang 2013, "Stochastic gradient descent for non-smooth optimization")
until its window is as long as asked for, exponential from there on. Nodes train on from the newest model as ever.
"""

import torch

from common.errors import RunDirectoryError
from common.models import State
from server.memory import Plain, as_state


class RunningAverage:
    """The average as it is after the last round."""

    def __init__(self, decay: float, newest: State, remembered: Plain = None) -> None:
        """Go on from what a checkpoint ``remembered``, or begin.

        Args:
            decay: share of the average that stays in the next, [0, 1); 0 keeps none.
            newest: the global model.
            remembered: what ``memory`` gave.

        Raises:
            RunDirectoryError: that is no average of such models.
        """
        self._decay = decay
        self._average = newest if remembered is None else _checked(remembered, newest)

    def including(self, number: int, newest: State) -> State:
        """The average with the model of round ``number`` (1..) in it; of the first model that is the model itself."""
        kept = min(self._decay, (number - 1) / (number + 1))
        if not kept:
            self._average = newest
        else:
            self._average = {name: torch.lerp(value, newest[name], 1 - kept) for name, value in self._average.items()}
        return self._average

    @property
    def memory(self) -> Plain:
        """What a checkpoint must keep: the average, if it is any other than the newest model."""
        return dict(self._average) if self._decay else None


def _checked(remembered: Plain, newest: State) -> State:
    try:
        return as_state(remembered, like=newest)
    except TypeError:
        raise RunDirectoryError("the checkpoint's running_average is no model of this run; start a new run") from None
