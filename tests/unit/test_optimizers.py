"""Rule: our optimizers are those of torch.optim bit for bit, and so are their textbook steps."""

import re
from io import BytesIO

import pytest
import torch

from common.layers import from_assignments, load
from common.optimizers import SGD, Adam, AdamW, Optimizer, build
from common.settings import TrainingSettings


def training(*assignments: str) -> TrainingSettings:
    return load(from_assignments([f"training.{text}" for text in assignments])).training


@pytest.mark.parametrize("weight_decay", [0.0, 1e-3])
@pytest.mark.parametrize(
    ("assignments", "reference"),
    [
        (["optimizer=sgd", "momentum=0.0"], torch.optim.SGD),
        (["optimizer=sgd", "momentum=0.9"], torch.optim.SGD),
        (["optimizer=adam"], torch.optim.Adam),
        (["optimizer=adam", "beta1=0.5", "beta2=0.9", "epsilon=1e-4"], torch.optim.Adam),
        (["optimizer=adamw"], torch.optim.AdamW),
    ],
)
def test_twenty_steps_equal_those_of_torch_bit_for_bit(
    assignments: list[str], reference: type[torch.optim.Optimizer], weight_decay: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((6, 1, 5, 5), (6,), (37, 11))]
    ours = [value.clone() for value in start]
    theirs = [value.clone().requires_grad_() for value in start]
    settings = training("learning_rate=0.05", f"weight_decay={weight_decay}", *assignments)
    optimizer = build(settings, ours)
    options = (
        {"momentum": settings.momentum}
        if reference is torch.optim.SGD
        else {"betas": (settings.beta1, settings.beta2), "eps": settings.epsilon}
    )
    other = reference(theirs, lr=0.05, weight_decay=weight_decay, **options)  # type: ignore[call-arg]
    for step in range(20):
        if step == 10:  # as a schedule does
            optimizer.learning_rate = other.param_groups[0]["lr"] = 0.01
        gradients = [torch.randn(value.shape, generator=generator) for value in start]
        optimizer.step(gradients)
        for value, gradient in zip(theirs, gradients, strict=True):
            value.grad = gradient.clone()
        other.step()
        assert all(torch.equal(mine, value) for mine, value in zip(ours, theirs, strict=True))


def test_a_step_of_sgd_by_hand() -> None:
    weight = torch.tensor([1.0])
    sgd = SGD([weight], learning_rate=0.5, momentum=0.5, weight_decay=0.25)
    sgd.step([torch.tensor([0.75])])  # gradient 0.75 + 0.25*1 = 1, velocity 1, weight 1 - 0.5*1
    assert weight.item() == 0.5
    sgd.step([torch.tensor([0.375])])  # gradient 0.375 + 0.25*0.5 = 0.5, velocity 0.5*1 + 0.5 = 1, weight 0.5 - 0.5
    assert weight.item() == 0.0


def test_the_first_step_of_adam_is_the_learning_rate_whatever_the_gradient() -> None:
    weight = torch.tensor([1.0, 1.0])
    Adam([weight], learning_rate=0.25).step([torch.tensor([1000.0, -0.001])])
    torch.testing.assert_close(weight, torch.tensor([0.75, 1.25]), rtol=0, atol=1e-5)


def test_adamw_shrinks_weights_that_adam_would_leave() -> None:
    weight = torch.tensor([1.0])
    AdamW([weight], learning_rate=0.5, weight_decay=0.5).step([torch.tensor([0.0])])
    assert weight.item() == 0.75  # 1 - 0.5 * 0.5


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_gradients_are_left_as_they_are(kind: type[SGD | Adam]) -> None:
    gradient = torch.tensor([1.0, 2.0])
    optimizer = kind([torch.zeros(2)], learning_rate=0.1, weight_decay=0.1)
    optimizer.step([gradient])
    optimizer.step([gradient])
    assert gradient.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_a_gradient_too_few_is_refused(kind: type[SGD | Adam]) -> None:
    with pytest.raises(ValueError, match="expected 2 gradients, one a parameter, got 1"):
        kind([torch.zeros(1), torch.zeros(1)], 0.1).step([torch.zeros(1)])


@pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("adam", Adam), ("adamw", AdamW)])
def test_every_name_in_the_settings_is_built(name: str, kind: type[Optimizer]) -> None:
    assert type(build(training(f"optimizer={name}"), [])) is kind


KINDS = [
    ["optimizer=sgd", "momentum=0.0"],
    ["optimizer=sgd", "momentum=0.9"],
    ["optimizer=adam"],
    ["optimizer=adamw", "weight_decay=0.01"],
]


def some_steps(optimizer: Optimizer, generator: torch.Generator, num_steps: int) -> None:
    for _ in range(num_steps):
        optimizer.step([torch.randn(value.shape, generator=generator) for value in optimizer.parameters])


@pytest.mark.parametrize("assignments", KINDS)
@pytest.mark.parametrize("steps_before", [0, 3])
def test_an_optimizer_goes_on_from_its_state_bit_for_bit(assignments: list[str], steps_before: int) -> None:
    generator = torch.Generator().manual_seed(0)
    first = build(training(*assignments), [torch.ones(3, 2), torch.ones(4)])
    some_steps(first, generator, steps_before)
    content = BytesIO()
    torch.save(first.state(), content)
    second = build(training(*assignments), [value.clone() for value in first.parameters])
    content.seek(0)
    second.load_state(torch.load(content, weights_only=True))
    after = generator.get_state()
    some_steps(first, generator, 2)
    some_steps(second, generator.set_state(after), 2)
    assert all(torch.equal(mine, other) for mine, other in zip(first.parameters, second.parameters, strict=True))


@pytest.mark.parametrize("assignments", KINDS[1:])
def test_a_state_shares_memory_with_neither_optimizer(assignments: list[str]) -> None:
    first, second = (build(training(*assignments), [torch.ones(2)]) for _ in range(2))
    first.step([torch.ones(2)])
    state = first.state()
    before = repr(state)
    second.load_state(state)
    first.step([torch.ones(2)])
    second.step([torch.ones(2)])
    assert repr(state) == before


@pytest.mark.parametrize(
    ("assignments", "state", "said"),
    [
        (KINDS[1], {}, "must hold velocity, got []"),
        (KINDS[2], {"velocity": []}, "must hold means, squares, steps, got ['velocity']"),
        (KINDS[1], {"velocity": "fast"}, "velocity must be a list of tensors, got str"),
        (KINDS[1], {"velocity": [1.0, 2.0]}, "velocity must be a list of tensors, got list"),
        (
            KINDS[1],
            {"velocity": [torch.zeros(2)]},
            "velocity must be 2 tensors (torch.float32 [2], torch.float32 [3]), got 1 tensors (torch.float32 [2])",
        ),
        (
            KINDS[1],
            {"velocity": [torch.zeros(2), torch.zeros(3, dtype=torch.float64)]},
            "velocity must be 2 tensors (torch.float32 [2], torch.float32 [3]),"
            " got 2 tensors (torch.float32 [2], torch.float64 [3])",
        ),
        (KINDS[2], {"steps": 1, "means": [], "squares": []}, "means must be 2 tensors"),
        (KINDS[2], {"steps": -1}, "steps must be a whole number from 0, got -1"),
        (KINDS[2], {"steps": True}, "steps must be a whole number from 0, got True"),
    ],
)
def test_a_state_that_is_not_ones_own_is_refused_and_changes_nothing(
    assignments: list[str], state: dict[str, object], said: str
) -> None:
    optimizer = build(training(*assignments), [torch.zeros(2), torch.zeros(3)])
    optimizer.step([torch.ones(2), torch.ones(3)])
    before = repr(optimizer.state())
    if set(state) == {"steps"}:
        state = optimizer.state() | state
    with pytest.raises(ValueError, match=re.escape(said)):
        optimizer.load_state(state)
    assert repr(optimizer.state()) == before
