"""Several LeNet-5s trained at once, each on examples of its own: what ``fit`` makes of each, bit for bit, and sooner.

At small batches the calls of a step cost more than its arithmetic, and here one call serves all models. Only sums over
one model's own batch are taken, each by the same matrix product as in ``fit``, so no bit depends on the company.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common import optimizers, schedules
from common.lenet5_gradients import LeNet5Gradients, is_known
from common.models import Network, State
from common.settings import TrainingSettings
from common.training import FitResult, Prepare, batches, pulled

MAX_IMAGES = 64  # of all models in a step: more fit a core's cache no longer


@dataclass(frozen=True)
class Part:
    """What is one model's own."""

    state: State  # its weights, of which copies are trained
    images: Tensor  # uint8 [N, 28, 28], N >= 1 and the same for all
    labels: Tensor  # int64 [N], 0..9
    generator: torch.Generator  # where the order of its examples comes from


def num_together(model: Network, settings: TrainingSettings) -> int:
    """How many such models are best trained at once: 1 where that is not possible, or gains nothing."""
    if not is_known(model) or settings.optimizer != "sgd":
        return 1
    return max(1, MAX_IMAGES // settings.batch_size)


def fit_together(
    model: Network,
    parts: Sequence[Part],
    prepare: Prepare,
    settings: TrainingSettings,
    round_number: int,
    watch: Callable[[float], None] = lambda _: None,
    proximal_mu: float = 0.0,
) -> list[tuple[State, FitResult]]:
    """Train each of ``parts`` as ``fit`` does.

    Args:
        model: says which network; its weights do not matter.
        parts: as many as ``num_together`` says, or fewer.
        prepare: from images to what the network reads.
        settings: optimizer (SGD), schedule, batch size, local epochs.
        round_number: 1..; the schedule counts from the first.
        watch: called after each step with the fraction done, (0, 1]; what it raises ends all fits.
        proximal_mu: see ``fit``.

    Returns:
        The learned weights of each, and what its fit did.
    """
    names = [name for name, _ in model.named_parameters()]
    parameters = [torch.stack([part.state[name] for part in parts]) for name in names]
    origin = [parameter.clone() for parameter in parameters] if proximal_mu else []
    optimizer, gradients_of = optimizers.build(settings, parameters), LeNet5Gradients(parameters, model.input_size)
    num_examples = len(parts[0].labels)
    num_steps = settings.local_epochs * -(-num_examples // settings.batch_size)
    loss_sums = torch.zeros(len(parts))
    num_processed = 0
    own = [batches(part.images, part.labels, prepare, settings, part.generator) for part in parts]
    for step, together in enumerate(zip(*own, strict=True), start=1):
        epochs, x, y = zip(*together, strict=True)
        optimizer.learning_rate = schedules.learning_rate(settings, round_number, epochs[0])
        losses, gradients = gradients_of(x, torch.stack(y))
        optimizer.step(pulled(gradients, parameters, origin, proximal_mu) if proximal_mu else gradients)
        loss_sums += losses * len(y[0])
        num_processed += len(y[0])
        watch(step / num_steps)
    return [
        (
            {name: parameter[place] for name, parameter in zip(names, parameters, strict=True)},
            FitResult(loss_sum / num_processed, num_examples, num_steps, num_processed),
        )
        for place, loss_sum in enumerate(loss_sums.tolist())
    ]
