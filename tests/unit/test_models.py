"""Rule: every network has the shapes and the loss it is described with; one seed gives one set of initial weights."""

import copy
import hashlib
import math
import struct
from typing import get_args

import pytest
import torch

from common.models import MODELS, build, copy_state, initial_state, load_state, weights_of, weights_sha256
from common.settings import ModelSettings
from common.streams import stream

# Weights and biases: 6 maps of 5x5; 16 maps of 6x5x5; 400 -> 120 -> 84 -> 10.
SHAPES = {
    "conv1.weight": (6, 1, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (120, 400),
    "fc1.bias": (120,),
    "fc2.weight": (84, 120),
    "fc2.bias": (84,),
    "fc3.weight": (10, 84),
    "fc3.bias": (10,),
}


def test_lenet5_has_61706_parameters_in_the_shapes_of_its_layers() -> None:
    model = build("lenet5")
    assert {name: tuple(value.shape) for name, value in model.named_parameters()} == SHAPES
    # 6*25+6, 16*150+16, 400*120+120, 120*84+84, 84*10+10
    assert sum(value.numel() for value in model.parameters()) == 156 + 2416 + 48120 + 10164 + 850 == 61_706


def test_lenet5_maps_images_to_ten_logits() -> None:
    assert build("lenet5")(torch.zeros(3, 1, 32, 32)).shape == (3, 10)


# Convolutions: maps * (inputs * side**2 + 1 bias); linear layers: outputs * (inputs + 1).
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("lenet5", {"conv1": 6 * 26, "conv2": 16 * 151, "fc1": 120 * 401, "fc2": 84 * 121, "fc3": 10 * 85}),
        ("lenet5-sigmoid", {"conv1": 6 * 26, "conv2": 16 * 151, "conv3": 120 * 401, "fc1": 84 * 121, "fc2": 10 * 85}),
        ("lenet5-28", {"conv1": 6 * 26, "conv2": 16 * 151, "fc1": 120 * 257, "fc2": 84 * 121, "fc3": 10 * 85}),
        ("mlp", {"fc1": 100 * 785, "fc2": 10 * 101}),
        ("cnn", {"conv1": 16 * 10, "fc1": 100 * 9217, "fc2": 10 * 101}),
    ],
)
def test_every_layer_has_its_parameters(name: str, layers: dict[str, int]) -> None:
    sizes = dict.fromkeys(layers, 0)
    for key, value in build(name).named_parameters():
        sizes[key.split(".")[0]] += value.numel()
    assert sizes == layers


@pytest.mark.parametrize(
    ("name", "total", "size"),
    [("lenet5", 61_706, 32), ("lenet5-sigmoid", 61_706, 28), ("lenet5-28", 44_426, 28), ("mlp", 79_510, 28),
     ("cnn", 922_870, 28)],
)  # fmt: skip
def test_every_network_has_its_total_and_its_input(name: str, total: int, size: int) -> None:
    model = build(name)
    assert sum(value.numel() for value in model.parameters()) == total
    assert model.input_size == size
    assert model(torch.zeros(3, 1, size, size)).shape == (3, 10)


@pytest.mark.parametrize("name", MODELS)
def test_ten_equal_answers_cost_log_10_each(name: str) -> None:
    model = build(name)
    model.load_state_dict({key: torch.zeros_like(value) for key, value in model.state_dict().items()})
    answer = model(torch.ones(2, 1, model.input_size, model.input_size))
    labels = torch.tensor([3, 8])
    assert model.loss(answer, labels).item() == pytest.approx(math.log(10))
    assert model.loss(answer, labels, reduction="sum").item() == pytest.approx(2 * math.log(10))


def test_lenet5_28_answers_log_probabilities() -> None:
    answer = build("lenet5-28")(torch.rand(4, 1, 28, 28))
    torch.testing.assert_close(answer.exp().sum(dim=1), torch.ones(4))
    labels = torch.tensor([1, 2, 3, 4])
    picked = -(answer[0, 1] + answer[1, 2] + answer[2, 3] + answer[3, 4]) / 4
    torch.testing.assert_close(MODELS["lenet5-28"]().loss(answer, labels), picked)


def test_lenet5_sigmoid_is_linear_after_its_second_pooling() -> None:
    model = build("lenet5-sigmoid")
    state = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    # sigmoid(0) = 0.5 in every unit of the second convolution; 400 of them, weighted -0.01: -2; then -2 * 3 * 1.
    state["conv3.weight"][0] = -0.01
    state["fc1.weight"][0, 0] = 3.0
    state["fc2.weight"][7, 0] = 1.0
    model.load_state_dict(state)
    answer = model(torch.ones(1, 1, 28, 28))
    assert answer[0, 7].item() == pytest.approx(-6.0, rel=1e-5)  # a ReLU or a sigmoid would have changed its sign


def test_a_network_whose_weights_are_zero_answers_with_the_bias_of_its_last_layer() -> None:
    model = build("lenet5")
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    state["fc3.bias"] = torch.arange(10.0)
    model.load_state_dict(state)
    assert torch.equal(model(torch.ones(1, 1, 32, 32)), torch.arange(10.0).unsqueeze(0))


def test_one_seed_gives_one_set_of_weights() -> None:
    first, again, other = initial_state("lenet5", 7), initial_state("lenet5", 7), initial_state("lenet5", 8)
    assert all(torch.equal(first[name], again[name]) for name in SHAPES)
    assert not any(torch.equal(first[name], other[name]) for name in SHAPES)


def test_the_weights_that_runs_of_lenet5_start_from_are_golden() -> None:
    values = b"".join(value.numpy().tobytes() for value in initial_state("lenet5", 42).values())
    assert hashlib.sha256(values).hexdigest()[:16] == "4c9386f69bbf016a"


def test_initial_weights_do_not_depend_on_global_chance() -> None:
    torch.manual_seed(0)
    first = initial_state("lenet5", 7)
    torch.manual_seed(1)
    assert torch.equal(initial_state("lenet5", 7)["fc1.weight"], first["fc1.weight"])


def test_the_first_layer_is_drawn_uniformly_from_the_stream_of_round_0() -> None:
    drawn = torch.empty(6, 1, 5, 5).uniform_(-0.2, 0.2, generator=stream(7, 0, 0))  # 1/sqrt(25) = 0.2
    assert torch.equal(initial_state("lenet5", 7)["conv1.weight"], drawn)


def test_weights_stay_within_the_bound_of_their_fan_in() -> None:
    state = initial_state("lenet5", 7)
    for layer, fan_in in {"conv1": 25, "conv2": 150, "fc1": 400, "fc2": 120, "fc3": 84}.items():
        for kind in ("weight", "bias"):
            assert state[f"{layer}.{kind}"].abs().max() <= fan_in**-0.5


@pytest.mark.parametrize("name", MODELS)
def test_every_network_draws_all_its_layers(name: str) -> None:
    first, again = initial_state(name, 7), initial_state(name, 7)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert all(value.abs().min() < value.abs().max() <= 1 / 3 for value in first.values())  # 1/sqrt(9) for cnn


def test_a_copied_state_is_its_own() -> None:
    model = build("lenet5")
    copied = copy_state(model)
    before = copied["fc3.bias"].clone()
    with torch.no_grad():
        model.get_parameter("fc3.bias").add_(1)
    assert torch.equal(copied["fc3.bias"], before)
    assert not any(value.requires_grad for value in copied.values())


def test_weights_are_loaded_by_name_in_whatever_order() -> None:
    class TwoAlike(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))

    for order in ("ab", "ba"):
        model = TwoAlike()
        load_state(model, {name: torch.full((2,), float(ord(name))) for name in order})
        assert (model.a.tolist(), model.b.tolist()) == ([97.0, 97.0], [98.0, 98.0])


def test_the_weights_of_a_network_are_its_own_and_those_of_a_copy_the_copys() -> None:
    model = build("mlp")
    ours, names = weights_of(model), list(model.state_dict())
    theirs = weights_of(copy.deepcopy(model))
    assert list(ours) == names
    load_state(model, {name: torch.full_like(value, 2.0) for name, value in ours.items()})
    assert all(bool((value == 2.0).all()) for value in (*model.parameters(), *ours.values()))
    assert not any(bool((value == 2.0).any()) for value in theirs.values())


@pytest.mark.parametrize("shapes", [{"weight": (1, 2)}, {"weight": (2, 1), "bias": (1,)}])
def test_weights_that_do_not_fit_are_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(RuntimeError, match="Error\\(s\\) in loading state_dict"):
        load_state(torch.nn.Linear(2, 1), {name: torch.zeros(shape) for name, shape in shapes.items()})


def test_every_network_has_a_name_in_the_settings() -> None:
    assert tuple(MODELS) == get_args(ModelSettings.model_fields["name"].annotation)


def test_weights_are_hashed_by_name_dtype_shape_and_bytes_in_order() -> None:
    state = {"w": torch.tensor([[1.0, 2.0]]), "n": torch.tensor(3)}
    expected = hashlib.sha256(
        b"w\0torch.float32\0[1, 2]\0" + struct.pack("<2f", 1, 2) + b"n\0torch.int64\0[]\0" + struct.pack("<q", 3)
    )
    assert weights_sha256(state) == expected.hexdigest()
    assert weights_sha256(dict(reversed(state.items()))) != expected.hexdigest()


def test_a_view_hashes_like_its_copy() -> None:
    table = torch.arange(6.0).reshape(2, 3)
    assert weights_sha256({"w": table.t()}) == weights_sha256({"w": table.t().contiguous()})
