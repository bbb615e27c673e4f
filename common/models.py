"""Networks by name: what each takes, what it answers, and the loss that fits its answer."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.streams import stream

State = dict[str, Tensor]  # a state_dict: parameter name -> float32 tensor
_WEIGHTS: WeakKeyDictionary[nn.Module, State] = WeakKeyDictionary()  # see ``weights_of``


class Network(nn.Module):
    """A classifier of digits: float32 images [N, 1, S, S] in, float32 [N, 10] out, one column a digit.

    Attributes:
        input_size: S, pixels on a side.
    """

    input_size: ClassVar[int] = 28

    def loss(self, answer: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy of ``answer`` (logits [N, 10]) and ``labels`` (int64 [N]), their mean or ``sum``."""
        return F.cross_entropy(answer, labels, reduction=reduction)


class LeNet5(Network):
    """LeNet-5 with ReLU and max pooling, 61,706 parameters.

    After LeCun et al., "Gradient-based learning applied to document recognition" (1998); the
    original has sigmoid units, trained sub-sampling and a sparse second convolution.
    """

    input_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, 10] of ``images`` [N, 1, 32, 32]."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)  # [N, 6, 14, 14]
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # [N, 16, 5, 5]
        x = F.relu(self.fc1(x.flatten(1)))  # [N, 120]
        x = F.relu(self.fc2(x))  # [N, 84]
        return self.fc3(x)  # type: ignore[no-any-return]  # torch types a module's call as Any


class LeNet5Sigmoid(Network):
    """LeNet-5 nearer to its paper: sigmoid, average pooling, a third convolution; 61,706 parameters.

    The third convolution and the first linear layer have no activation after them, as in the tutorial.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.conv3 = nn.Conv2d(16, 120, kernel_size=5)
        self.fc1 = nn.Linear(120, 84)
        self.fc2 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, 10] of ``images`` [N, 1, 28, 28]."""
        x = F.avg_pool2d(torch.sigmoid(self.conv1(images)), 2)  # [N, 6, 14, 14]
        x = F.avg_pool2d(torch.sigmoid(self.conv2(x)), 2)  # [N, 16, 5, 5]
        x = self.conv3(x).flatten(1)  # [N, 120]
        return self.fc2(self.fc1(x))  # type: ignore[no-any-return]


class LeNet5On28(Network):
    """LeNet-5 on images as they are, without padding; answers log-probabilities; 44,426 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(256, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities [N, 10] of ``images`` [N, 1, 28, 28]."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)  # [N, 6, 12, 12]
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # [N, 16, 4, 4]
        x = F.relu(self.fc1(x.flatten(1)))  # [N, 120]
        x = F.relu(self.fc2(x))  # [N, 84]
        return F.log_softmax(self.fc3(x), dim=1)

    def loss(self, answer: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Negative log-likelihood of ``labels`` (int64 [N]) under ``answer`` (log-probabilities [N, 10])."""
        return F.nll_loss(answer, labels, reduction=reduction)


class MLP(Network):
    """One hidden layer of 100 units with ReLU, 79,510 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 100)
        self.fc2 = nn.Linear(100, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, 10] of ``images`` [N, 1, 28, 28]."""
        x = F.relu(self.fc1(images.flatten(1)))  # [N, 100]
        return self.fc2(x)  # type: ignore[no-any-return]


class CNN(Network):
    """One convolution, pooled with overlap, and one hidden layer with ReLU; 922,870 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3)
        self.fc1 = nn.Linear(9216, 100)
        self.fc2 = nn.Linear(100, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, 10] of ``images`` [N, 1, 28, 28]."""
        x = F.relu(self.conv1(images))  # [N, 16, 26, 26]
        x = x.contiguous(memory_format=torch.channels_last)  # the same values, pooled side by side: much sooner
        x = F.max_pool2d(x, kernel_size=3, stride=1)  # [N, 16, 24, 24]
        x = F.relu(self.fc1(x.flatten(1)))  # [N, 100]
        return self.fc2(x)  # type: ignore[no-any-return]


MODELS: dict[str, type[Network]] = {
    "lenet5": LeNet5,
    "lenet5-sigmoid": LeNet5Sigmoid,
    "lenet5-28": LeNet5On28,
    "mlp": MLP,
    "cnn": CNN,
}


def build(name: str) -> Network:
    """A network with arbitrary weights; ``name`` is one of ``MODELS``."""
    return MODELS[name]()


@lru_cache
def layout(name: str) -> State:
    """Names and shapes of a network's weights; the tensors hold no values."""
    with torch.device("meta"):
        return build(name).state_dict()


def initial_state(name: str, seed: int) -> State:
    """The untrained weights of a run (round 0); the same on every machine for one ``seed``."""
    model = build(name)
    generator = stream(seed, round_number=0, shard=0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # PyTorch's own default: uniform in +-1/sqrt(fan in), but from our generator.
                bound = module.weight[0].numel() ** -0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
    return copy_state(model)


def weights_of(model: nn.Module) -> State:
    """``model.state_dict()``, looked up once. Nothing may put others in the place of these tensors, as ``double()``."""
    if model not in _WEIGHTS:
        _WEIGHTS[model] = dict(model.state_dict())
    return _WEIGHTS[model]


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """``model.load_state_dict(state)`` and its errors, but in one call where all fits.

    Raises:
        RuntimeError: it does not fit.
    """
    own = weights_of(model)
    if [(name, value.shape) for name, value in state.items()] == [(name, value.shape) for name, value in own.items()]:
        torch._foreach_copy_(list(own.values()), list(state.values()))
    else:
        model.load_state_dict(state)


def copy_state(model: nn.Module) -> State:
    """The weights of ``model`` as tensors of their own."""
    return own_copy(model.state_dict())


def own_copy(state: Mapping[str, Tensor]) -> State:
    """The tensors of ``state``, detached and on the CPU, sharing memory with no other."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 of weights: name, dtype, shape and bytes of each tensor, in ``state_dict`` order."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(title(name, value.dtype, value.shape))
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@lru_cache(maxsize=256)
def title(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> bytes:
    """What ``weights_sha256`` says of a tensor before its bytes."""
    return f"{name}\0{dtype}\0{list(shape)}\0".encode()
