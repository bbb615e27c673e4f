"""Rule: fit is the plain loop of the paper, evaluate is the mean over examples; both touch nothing but the model."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common import optimizers
from common.augmentation import moved
from common.layers import from_assignments, load
from common.models import Network
from common.preprocessing import Preprocessing
from common.settings import TrainingSettings
from common.training import evaluate, fit

SETTINGS: TrainingSettings = load(
    from_assignments(
        [
            "training.learning_rate=0.1",
            "training.schedule=exponential",
            "training.schedule_gamma=0.5",
            "training.momentum=0.9",
            "training.weight_decay=0.01",
            "training.batch_size=4",
            "training.local_epochs=2",
        ]
    )
).training
prepare = Preprocessing("pad", 32, 0.1307, 0.3081).prepare


class Linear(Network):
    """One layer on 32x32 pixels."""

    input_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32 * 32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.flatten(1))  # type: ignore[no-any-return]


class Stopped(Exception):
    pass


def toy(num_examples: int = 10) -> tuple[Network, torch.Tensor, torch.Tensor]:
    """A linear model on 32x32 pixels, and ten images with labels."""
    generator = torch.Generator().manual_seed(1)
    model = Linear()
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(std=0.01, generator=generator)
    images = torch.randint(0, 256, (num_examples, 28, 28), generator=generator).to(torch.uint8)
    labels = torch.arange(num_examples) % 10
    return model, images, labels


def test_fit_equals_a_plain_loop_with_torchs_own_optimizer() -> None:
    model, images, labels = toy()
    plain = copy.deepcopy(model)
    result = fit(model, images, labels, prepare, SETTINGS, 3, torch.Generator().manual_seed(5))

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1 * 0.5**2, momentum=0.9, weight_decay=0.01)
    generator, losses = torch.Generator().manual_seed(5), []
    for _ in range(2):
        order = torch.randperm(10, generator=generator)
        for batch in (order[:4], order[4:8], order[8:]):
            optimizer.zero_grad()
            loss = F.cross_entropy(plain(prepare(images[batch])), labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(batch))

    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert result.num_examples == 10
    assert result.num_steps == 6
    assert result.num_processed == 20
    assert result.train_loss == pytest.approx(sum(losses) / 20, rel=1e-6)


@pytest.mark.parametrize(("max_steps", "num_processed"), [(1, 4), (3, 10), (4, 14), (6, 20), (9, 20)])
def test_a_budget_of_steps_ends_a_fit_just_where_the_plain_loop_would_be(max_steps: int, num_processed: int) -> None:
    """Ten examples in batches of 4, 4 and 2, twice."""
    model, images, labels = toy()
    stopped = copy.deepcopy(model)
    watched: list[float] = []
    result = fit(
        model, images, labels, prepare, SETTINGS, 1, torch.Generator().manual_seed(5), watched.append,
        max_steps=max_steps,
    )  # fmt: skip
    steps = iter(range(1, 7))
    same = fit(
        stopped, images, labels, prepare, SETTINGS, 1, torch.Generator().manual_seed(5),
        is_enough=lambda: next(steps) == max_steps,
    )  # fmt: skip
    assert (result.num_steps, result.num_processed, result.num_examples) == (min(max_steps, 6), num_processed, 10)
    assert result == same
    assert watched[-1] == 1.0
    for mine, other in zip(model.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_an_optimizer_that_lives_on_keeps_its_momentum_from_fit_to_fit() -> None:
    model, images, labels = toy()
    plain = copy.deepcopy(model)
    settings = SETTINGS.model_copy(update={"local_epochs": 1})
    ours = optimizers.build(settings, model.parameters())
    theirs = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for round_number in (1, 2):
        generator = torch.Generator().manual_seed(round_number)
        fit(model, images, labels, prepare, settings, round_number, generator, optimizer=ours)
        theirs.param_groups[0]["lr"] = 0.1 * 0.5 ** (round_number - 1)
        for batch in torch.randperm(10, generator=torch.Generator().manual_seed(round_number)).split(4):
            theirs.zero_grad()
            F.cross_entropy(plain(prepare(images[batch])), labels[batch]).backward()
            theirs.step()
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_first_loss_is_that_of_the_model_that_came() -> None:
    model, images, labels = toy(4)
    before = F.cross_entropy(model(prepare(images)), labels).item()
    one_step = SETTINGS.model_copy(update={"local_epochs": 1})
    assert fit(model, images, labels, prepare, one_step, 1, torch.Generator()).train_loss == pytest.approx(before)


@pytest.mark.parametrize(("round_number", "factor"), [(1, 1.0), (2, 0.5), (4, 0.125)])
def test_the_learning_rate_decays_from_round_to_round(round_number: int, factor: float) -> None:
    settings = SETTINGS.model_copy(update={"momentum": 0.0, "weight_decay": 0.0, "local_epochs": 1})
    model, images, labels = toy(4)
    before = model.state_dict()["layer.bias"].clone()
    gradient = torch.autograd.grad(F.cross_entropy(model(prepare(images)), labels), list(model.parameters()))[1]
    fit(model, images, labels, prepare, settings, round_number, torch.Generator())
    torch.testing.assert_close(model.state_dict()["layer.bias"], before - 0.1 * factor * gradient)


def test_the_order_of_examples_comes_from_the_generator_alone() -> None:
    states = []
    for seed, elsewhere in ((5, 0), (5, 1), (6, 0)):
        model, images, labels = toy()
        torch.manual_seed(elsewhere)
        fit(model, images, labels, prepare, SETTINGS, 1, torch.Generator().manual_seed(seed))
        states.append(model.state_dict()["layer.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_fit_moves_the_images_anew_in_every_epoch() -> None:
    settings = SETTINGS.model_copy(update={"max_shift": 2})
    model, images, labels = toy()
    seen: list[torch.Tensor] = []

    def watched(some: torch.Tensor) -> torch.Tensor:
        seen.append(some)
        return prepare(some)

    fit(model, images, labels, watched, settings, 1, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    for given in seen:  # one window an epoch
        order = torch.randperm(len(labels), generator=generator)
        assert torch.equal(given, moved(images[order], 2, generator))
    assert len(seen) == 2


def test_the_watch_sees_every_step() -> None:
    model, images, labels = toy()
    seen: list[float] = []
    fit(model, images, labels, prepare, SETTINGS, 1, torch.Generator(), seen.append)
    assert seen == [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0]


def test_what_the_watch_raises_ends_the_fit() -> None:
    model, images, labels = toy()
    seen: list[float] = []

    def watch(fraction: float) -> None:
        seen.append(fraction)
        if fraction >= 0.5:
            raise Stopped

    with pytest.raises(Stopped):
        fit(model, images, labels, prepare, SETTINGS, 1, torch.Generator(), watch)
    assert seen == [1 / 6, 2 / 6, 3 / 6]


def test_evaluation_by_hand() -> None:
    """A model that always gives label 3 the odds 9 : 1 against each other one is sure of 0.5."""
    model, images, _ = toy(5)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
        model.get_parameter("layer.bias")[3] = math.log(9)
    labels = torch.tensor([3, 3, 0, 3, 9])
    found = evaluate(model, images, labels, prepare, batch_size=2)
    # p(3) = 9/18, p(any other) = 1/18
    assert found.loss == pytest.approx((3 * math.log(2) + 2 * math.log(18)) / 5)
    assert found.accuracy == 0.6
    assert found.class_accuracy == {0: 0.0, 3: 1.0, 9: 0.0}


def test_an_evaluation_holds_the_answers_only_where_they_are_asked_for() -> None:
    model, images, labels = toy(5)
    with torch.no_grad():
        expected = model(prepare(images))
    found = evaluate(model, images, labels, prepare, batch_size=2, with_answers=True).answers
    assert found is not None
    assert torch.allclose(found, expected, atol=1e-5)  # sums of other batches round otherwise
    assert evaluate(model, images, labels, prepare).answers is None


def test_the_proximal_term_pulls_back_to_the_weights_that_came() -> None:
    """Two full-batch steps: the first starts at the global weights, where the pull is zero."""
    settings = SETTINGS.model_copy(update={"momentum": 0.0, "weight_decay": 0.0, "batch_size": 4})
    model, images, labels = toy(4)
    plain = copy.deepcopy(model)
    origin = [value.detach().clone() for value in plain.parameters()]
    fit(model, images, labels, prepare, settings, 1, torch.Generator(), proximal_mu=0.5)
    for _ in range(2):
        parameters = list(plain.parameters())
        loss = F.cross_entropy(plain(prepare(images)), labels)
        loss = loss + 0.25 * sum(((p - o) ** 2).sum() for p, o in zip(parameters, origin, strict=True))
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(0.1 * gradient)
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_evaluation_changes_nothing() -> None:
    model, images, labels = toy()
    before = copy.deepcopy(model.state_dict())
    assert evaluate(model, images, labels, prepare) == evaluate(model, images, labels, prepare)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
