"""Learning rates by name: how the rate falls over the rounds, or the epochs, of a run."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.settings import TrainingSettings


def learning_rate(settings: "TrainingSettings", round_number: int, epoch: int) -> float:
    """The learning rate of one epoch, which depends on nothing but its place in the run.

    ==============  =====================================================================
    constant        ``learning_rate``
    exponential     ``learning_rate * schedule_gamma ** t``
    step            ``learning_rate * schedule_gamma ** (t // schedule_every)``
    cosine          ``learning_rate * (1 + cos(pi * t / schedule_length)) / 2``, 0 after that
                    (Loshchilov & Hutter 2017, without restarts)
    ==============  =====================================================================

    Args:
        settings: name, unit and parameters of the schedule.
        round_number: 1..
        epoch: 0.. to ``local_epochs`` - 1, within the round.

    Returns:
        A rate >= 0 at t, the rounds or epochs before this one.
    """
    done = round_number - 1
    if settings.schedule_unit == "epoch":
        done = done * settings.local_epochs + epoch
    match settings.schedule:
        case "constant":
            factor = 1.0
        case "exponential":
            factor = settings.schedule_gamma**done
        case "step":
            factor = settings.schedule_gamma ** (done // settings.schedule_every)
        case "cosine":
            factor = (1 + math.cos(math.pi * min(1.0, done / settings.schedule_length))) / 2
    return settings.learning_rate * factor
