"""Rule: the gradients by hand are autograd's, whatever the batch, and they are taken for LeNet-5 alone."""

import pytest
import torch
from torch import Tensor

from common import models, optimizers, schedules
from common.layers import from_assignments, load
from common.lenet5_gradients import SLICE, by_hand
from common.models import MODELS, LeNet5, Network
from common.preprocessing import Preprocessing
from common.training import fit

NAMES = ["lenet5", "lenet5-28"]
SETTINGS = load(from_assignments(["training.batch_size=10", "training.weight_decay=0.001"])).training


def some(num_examples: int) -> tuple[Tensor, Tensor]:
    """Digits, roughly: noise on a black ground, and labels."""
    chance = torch.Generator().manual_seed(num_examples)
    images = torch.zeros(num_examples, 28, 28, dtype=torch.uint8)
    images[:, 6:20, 8:22] = torch.randint(0, 256, (num_examples, 14, 14), generator=chance).to(torch.uint8)
    return images, torch.randint(0, 10, (num_examples,), generator=chance)


def trained(name: str, dtype: torch.dtype) -> Network:
    model = models.build(name)
    model.load_state_dict(models.initial_state(name, seed=1))
    return model.to(dtype)


def prepare(name: str) -> Preprocessing:
    size = MODELS[name].input_size
    return Preprocessing("none" if size == 28 else "pad", size, 0.1307, 0.3081)


def autograd(model: Network, x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    loss = model.loss(model(x), y)
    return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_loss_and_gradients_are_autograds(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model = trained(name, dtype)
    gradients_of = by_hand(model)
    assert gradients_of
    for num_examples in (10, 1, SLICE + 3, 10):  # and once more a size that was there before
        images, y = some(num_examples)
        x = prepare(name).prepare(images).to(dtype)
        loss, gradients = gradients_of(x, y)
        expected_loss, expected = autograd(model, x, y)
        torch.testing.assert_close(loss, expected_loss, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(gradients, list(expected), atol=tolerance, rtol=0)


def test_of_equal_outputs_the_first_is_pooled_as_in_torch() -> None:
    """Small whole numbers everywhere: sums are exact, so pooled outputs are often equal, and zero before ReLU."""
    chance, model = torch.Generator().manual_seed(0), LeNet5().double()
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randint(-1, 2, value.shape, generator=chance))
    x = torch.randint(0, 2, (5, 1, 32, 32), generator=chance).double()
    first = torch.conv2d(x, model.conv1.weight, model.conv1.bias).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert ((first == first.amax(4, keepdim=True)).sum(4) > 1).double().mean() > 0.2
    gradients_of = by_hand(model)
    assert gradients_of
    loss, gradients = gradients_of(x, torch.arange(5))
    expected_loss, expected = autograd(model, x, torch.arange(5))
    torch.testing.assert_close(loss, expected_loss, atol=0, rtol=1e-12)
    torch.testing.assert_close(gradients, list(expected), atol=1e-9, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "num_examples", "epochs", "tolerance"),
    [(torch.float32, 10, 1, 1e-5), (torch.float64, 95, 10, 1e-9)],  # 1 step, and 100, every tenth with 5 examples
)
def test_a_fit_ends_where_the_plain_loop_does(
    name: str, dtype: torch.dtype, num_examples: int, epochs: int, tolerance: float
) -> None:
    settings = SETTINGS.model_copy(update={"local_epochs": epochs})
    (images, labels), model, plain = some(num_examples), trained(name, dtype), trained(name, dtype)

    def prepared(of_images: Tensor) -> Tensor:
        return prepare(name).prepare(of_images).to(dtype)

    result = fit(model, images, labels, prepared, settings, 1, torch.Generator().manual_seed(7))

    optimizer, chance = optimizers.build(settings, plain.parameters()), torch.Generator().manual_seed(7)
    optimizer.learning_rate = schedules.learning_rate(settings, 1, 0)
    loss_sum = 0.0
    for _ in range(epochs):
        for batch in torch.randperm(num_examples, generator=chance).split(10):
            loss, gradients = autograd(plain, prepared(images[batch]), labels[batch])
            optimizer.step(gradients)
            loss_sum += loss.item() * len(batch)
    assert result.num_steps == epochs * -(-num_examples // 10)
    assert result.train_loss == pytest.approx(loss_sum / num_examples / epochs, abs=1e-6)
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), atol=tolerance, rtol=0)


def test_other_networks_are_left_to_autograd() -> None:
    class Mine(LeNet5):
        """Its forward could be anything."""

    assert [name for name in MODELS if by_hand(models.build(name))] == NAMES
    assert by_hand(Mine()) is None
