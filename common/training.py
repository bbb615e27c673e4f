"""Local training and evaluation: pure functions over a model and examples, no I/O."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from common import optimizers, schedules
from common.augmentation import moved
from common.lenet5_gradients import by_hand
from common.models import Network
from common.optimizers import Optimizer
from common.settings import TrainingSettings

NUM_LABELS = 10
WINDOW = 256  # examples prepared at once: 1 MB as floats, and with all that lies between 2 to 3
Prepare = Callable[[Tensor], Tensor]  # uint8 [N, 28, 28] -> float32 [N, 1, S, S]: ``Preprocessing.prepare``


@dataclass(frozen=True)
class FitResult:
    """What one fit did."""

    train_loss: float  # mean of the network's loss per processed example, before each step
    num_examples: int  # examples in the shard
    num_steps: int
    num_processed: int  # examples in these steps, each as often as it was in one


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on some examples."""

    loss: float  # mean of the network's loss per example
    accuracy: float  # 0..1
    class_accuracy: Mapping[int, float] = field(default_factory=dict)  # 0..1 of every label that there are examples of
    answers: Tensor | None = field(default=None, compare=False, repr=False)  # [N, 10], the network's, where asked for


def fit(
    model: Network,
    images: Tensor,
    labels: Tensor,
    prepare: Prepare,
    settings: TrainingSettings,
    round_number: int,
    generator: torch.Generator,
    watch: Callable[[float], None] = lambda _: None,
    optimizer: Optimizer | None = None,
    proximal_mu: float = 0.0,
    max_steps: int = 0,
    is_enough: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train ``model`` in place with local steps (McMahan et al. 2017, ClientUpdate).

    The gradients come from autograd, or for LeNet-5 from ``common.lenet5_gradients``: the same but for the last bits.

    Args:
        model: the network, holding the global weights; the learned weights are left in it.
        images: uint8 [N, 28, 28], N >= 1.
        labels: int64 [N], 0..9.
        prepare: from these images to what the network reads.
        settings: optimizer, schedule, batch size, local epochs, augmentation.
        round_number: 1..; the schedule counts from the first.
        generator: where the order of the examples comes from, and how they are moved.
        watch: called after each step with the fraction done, (0, 1]; what it raises ends the fit.
        optimizer: one of these settings over ``model``'s parameters that lives on from fit to fit; None: a new one.
        proximal_mu: >= 0, weight of half the squared distance from the global weights, which is added to the loss
            (FedProx, Li et al. 2020, equation 2); 0 = not.
        max_steps: >= 0, how many steps are taken at most; 0 = all that the epochs have.
        is_enough: asked after each step; True ends the fit with what is learned so far.
    """
    model.train()
    parameters = list(model.parameters())
    optimizer = optimizer or optimizers.build(settings, parameters)
    origin = [parameter.detach().clone() for parameter in parameters] if proximal_mu else []
    num_examples = len(labels)
    num_steps = settings.local_epochs * -(-num_examples // settings.batch_size)
    num_steps = min(num_steps, max_steps) if max_steps else num_steps
    gradients_by_hand = by_hand(model)
    loss_sum = torch.zeros(())
    num_processed = steps_done = 0
    for epoch, x, y in islice(batches(images, labels, prepare, settings, generator), num_steps):
        optimizer.learning_rate = schedules.learning_rate(settings, round_number, epoch)
        gradients: Sequence[Tensor]
        if gradients_by_hand:
            loss, gradients = gradients_by_hand(x, y)
        else:
            loss = model.loss(model(x), y)
            gradients = torch.autograd.grad(loss, parameters)
        if proximal_mu:
            gradients = pulled(gradients, parameters, origin, proximal_mu)
        optimizer.step(gradients)
        loss_sum += loss.detach() * len(y)  # the last batch is short: weight by examples
        num_processed += len(y)
        steps_done += 1
        watch(steps_done / num_steps)
        if is_enough():
            break
    return FitResult(loss_sum.item() / num_processed, num_examples, steps_done, num_processed)


def batches(
    images: Tensor, labels: Tensor, prepare: Prepare, settings: TrainingSettings, generator: torch.Generator
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(epoch, prepared images, labels) of every batch: an epoch goes through all examples in an order of its own."""
    window = max(1, WINDOW // settings.batch_size) * settings.batch_size  # many batches cost no more calls than one
    for epoch in range(settings.local_epochs):
        for some in torch.randperm(len(labels), generator=generator).split(window):
            x, y = prepare(moved(images[some], settings.max_shift, generator)), labels[some]
            for batch in zip(x.split(settings.batch_size), y.split(settings.batch_size), strict=True):
                yield epoch, *batch


@torch.no_grad()
def evaluate(
    model: Network,
    images: Tensor,
    labels: Tensor,
    prepare: Prepare,
    batch_size: int = 250,
    with_answers: bool = False,
) -> Evaluation:
    """Loss and accuracy of ``model`` on ``images`` (uint8 [N, 28, 28]) and ``labels`` (int64 [N]), N >= 1."""
    model.eval()
    loss_sum, correct = 0.0, torch.zeros(NUM_LABELS, dtype=torch.int64)
    answers: list[Tensor] = []
    for batch, targets in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        # This layout takes a fifth less time, batches that fit a core's cache two fifths (decision 0014).
        answer = model(prepare(batch).to(memory_format=torch.channels_last))  # [B, 10]
        loss_sum += model.loss(answer, targets, reduction="sum").item()
        correct += torch.bincount(targets[answer.argmax(dim=1) == targets], minlength=NUM_LABELS)
        if with_answers:
            answers.append(answer)
    of_each = torch.bincount(labels, minlength=NUM_LABELS)
    return Evaluation(
        loss=loss_sum / len(labels),
        accuracy=int(correct.sum()) / len(labels),
        class_accuracy={label: int(correct[label]) / n for label, n in enumerate(of_each.tolist()) if n},
        answers=torch.cat(answers) if with_answers else None,
    )


def pulled(
    gradients: Sequence[Tensor], parameters: Sequence[Tensor], origin: Sequence[Tensor], mu: float
) -> Sequence[Tensor]:
    """Gradients of the loss with FedProx's term, ``mu / 2`` times the squared distance from ``origin``."""
    with torch.no_grad():
        distance = torch._foreach_sub(list(parameters), list(origin))
        return torch._foreach_add(list(gradients), torch._foreach_mul(distance, mu))
