"""Clips updates: one far longer than those of the last rounds is shortened towards the global model, not set aside.

Norm thresholding as in Sun et al. 2019 ("Can You Really Backdoor Federated Learning?"), with a threshold that follows
the updates, as in Andrew et al. 2021 ("Differentially Private Learning with Adaptive Clipping"): a multiple of their
running median, which nobody moves far as long as most nodes are honest, or of the round's own if that is larger: when
all updates grow longer at once, that is training.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median_low

from common import flat
from common.arrays import to_state
from common.errors import RunDirectoryError
from common.models import State
from server.memory import Plain
from server.updates.screening import MIN_TO_COMPARE, Screened

ROUNDS_KEPT = 2  # beside the round at hand: updates grow shorter as a model learns, and old lengths say little


class Clipping:
    """The lengths (L2 distance from the global model) of the updates of the last rounds, and the limit they set."""

    def __init__(self, ratio: float = 0.0, norms: Plain = None) -> None:
        """Go on from the ``norms`` of a checkpoint, or from none.

        Args:
            ratio: how many times the running median an update may be long, > 0; 0 clips nothing.
            norms: of the updates averaged in the last rounds, a list for each round.

        Raises:
            RunDirectoryError: they are something else.
        """
        self._ratio = ratio
        self._norms = _checked(norms)

    def clipped(self, updates: Sequence[Screened], reference: State) -> list[Screened]:
        """The updates of a round that may be averaged, none longer than the limit; short ones as they are.

        Medians are lower ones: over these updates and those averaged in the last rounds, and over these alone. Below
        three of them all nobody can say what is long, and one alone is no measure of itself.

        Args:
            updates: of one round.
            reference: the global model that was sent out.
        """
        limit = self._ratio * self._median([update.norm for update in updates])
        if limit == 0:  # off, or most learned nothing
            return list(updates)
        return [self._shortened(each, limit, reference) if each.norm > limit else each for each in updates]

    def _median(self, norms: Sequence[float]) -> float:
        """What the lengths of a round are held against; 0 if there are too few."""
        running = [*(norm for earlier in self._norms for norm in earlier), *norms]
        if len(running) < MIN_TO_COMPARE:
            return 0.0
        return max(median_low(running), median_low(norms) if len(norms) > 1 else 0.0)

    def remember(self, updates: Sequence[Screened]) -> None:
        """Take the lengths of the updates that were averaged in this round, as they came in, for the next ones."""
        if self._ratio:
            self._norms = [*self._norms, [update.norm for update in updates]][-ROUNDS_KEPT:]

    @property
    def norms(self) -> Plain:
        """What a checkpoint must keep."""
        return [list(norms) for norms in self._norms]

    def _shortened(self, update: Screened, limit: float, reference: State) -> Screened:
        """``update`` with its direction and the length ``limit``, computed in float64."""
        share = limit / update.norm
        state = {
            name: (origin.double() + share * (value.double() - origin.double())).to(value.dtype)
            for name, value in to_state(update.arrays).items()
            for origin in (reference[name],)
        }
        arrays = flat.ArrayRecord(update.arrays.form, flat.vector_of(state))
        told = f"clipped from {update.norm:.3g} to {limit:.3g} ({self._ratio:g} x the median of the last rounds)"
        return replace(update, arrays=arrays, clipped=told)


def _checked(norms: Plain) -> list[list[float]]:
    """The lengths in a checkpoint, each a number of at least 0."""
    rounds = [] if norms is None else norms
    if not isinstance(rounds, list) or not all(
        isinstance(each, list) and all(map(_is_length, each)) for each in rounds
    ):
        raise RunDirectoryError("the checkpoint's norms are no lengths of updates; start a new run")
    return rounds  # type: ignore[return-value]  # just seen


def _is_length(value: object) -> bool:
    return isinstance(value, float) and 0 <= value < math.inf
