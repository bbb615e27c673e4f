"""Optimizers by name, with the update rules of ``torch.optim`` and without its 70 MB of imports.

Creating any ``torch.optim`` optimizer imports 823 modules (torch._dynamo, sympy): over a second and
70 MB that a Raspberry Pi does not have to spare. Tests hold each equal to its original, bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from common.settings import TrainingSettings


class Optimizer(ABC):
    """Changes ``parameters`` in place, a step at a time; ``learning_rate`` may change between steps."""

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, weight_decay: float = 0.0) -> None:
        """Args: learning_rate >= 0; weight_decay >= 0."""
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    @abstractmethod
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step down ``gradients``, which are in the order and shapes of the parameters."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What the steps so far left behind, as numbers and lists of tensors that share memory with nothing."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave, bit for bit; nothing of ``state`` is kept.

        Raises:
            ValueError: it is not the state of such an optimizer over such parameters.
        """

    def _check_number(self, gradients: Sequence[Tensor]) -> None:
        if len(gradients) != len(self.parameters):
            raise ValueError(f"expected {len(self.parameters)} gradients, one a parameter, got {len(gradients)}")

    def _own_copies(self, state: Mapping[str, Any], key: str) -> list[Tensor]:
        """The tensors under ``key``, one for each parameter and like it."""
        values = state.get(key)
        if not isinstance(values, list) or not all(isinstance(value, Tensor) for value in values):
            raise ValueError(f"the optimizer's {key} must be a list of tensors, got {type(values).__name__}")
        found, expected = ([(tuple(v.shape), v.dtype) for v in tensors] for tensors in (values, self.parameters))
        if found != expected:
            raise ValueError(f"the optimizer's {key} must be {_some(expected)}, got {_some(found)}")
        return [value.detach().clone() for value in values]

    def _with_penalty(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Gradients of the loss with an L2 penalty on the parameters."""
        if not self.weight_decay:
            return gradients
        return torch._foreach_add(list(gradients), self.parameters, alpha=self.weight_decay)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; ``weight_decay`` is an L2 penalty."""

    def __init__(
        self, parameters: Iterable[Tensor], learning_rate: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        """Args: learning_rate >= 0; momentum in [0, 1); weight_decay >= 0."""
        super().__init__(parameters, learning_rate, weight_decay)
        self.momentum = momentum
        self._velocity: list[Tensor] | None = None

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step down ``gradients``, which are in the order and shapes of the parameters."""
        self._check_number(gradients)
        gradients = self._with_penalty(gradients)
        if self.momentum:
            if self._velocity is None:
                self._velocity = [gradient.clone() for gradient in gradients]
            else:
                torch._foreach_mul_(self._velocity, self.momentum)
                torch._foreach_add_(self._velocity, list(gradients))
            gradients = self._velocity
        torch._foreach_add_(self.parameters, list(gradients), alpha=-self.learning_rate)

    def state(self) -> dict[str, Any]:
        """``velocity``: one tensor a parameter; none before the first step, and none without momentum."""
        return {"velocity": [velocity.clone() for velocity in self._velocity or []]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave; see ``Optimizer``."""
        _check_keys(state, {"velocity"})
        self._velocity = None if state["velocity"] == [] else self._own_copies(state, "velocity")


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1); ``weight_decay`` is an L2 penalty."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        """Args: learning_rate >= 0; beta1 and beta2 in [0, 1); epsilon > 0; weight_decay >= 0."""
        super().__init__(parameters, learning_rate, weight_decay)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self._steps = 0
        self._means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step down ``gradients``, which are in the order and shapes of the parameters."""
        self._check_number(gradients)
        self._steps += 1
        rate = self.learning_rate / (1 - self.beta1**self._steps)  # both averages start at zero: make up for it
        root = (1 - self.beta2**self._steps) ** 0.5
        gradients = list(self._decayed(gradients))
        torch._foreach_lerp_(self._means, gradients, 1 - self.beta1)
        torch._foreach_mul_(self._squares, self.beta2)
        torch._foreach_addcmul_(self._squares, gradients, gradients, value=1 - self.beta2)
        scales = torch._foreach_sqrt(self._squares)
        torch._foreach_div_(scales, root)
        torch._foreach_add_(scales, self.epsilon)
        torch._foreach_addcdiv_(self.parameters, self._means, scales, value=-rate)

    def state(self) -> dict[str, Any]:
        """``steps`` done, and ``means`` and ``squares``: one tensor a parameter each."""
        averages = {"means": self._means, "squares": self._squares}
        return {"steps": self._steps} | {key: [value.clone() for value in values] for key, values in averages.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave; see ``Optimizer``."""
        _check_keys(state, {"steps", "means", "squares"})
        means, squares, steps = self._own_copies(state, "means"), self._own_copies(state, "squares"), state["steps"]
        if type(steps) is not int or steps < 0:
            raise ValueError(f"the optimizer's steps must be a whole number from 0, got {steps!r:.40}")
        self._means, self._squares, self._steps = means, squares, steps

    def _decayed(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return self._with_penalty(gradients)


class AdamW(Adam):
    """Adam whose ``weight_decay`` shrinks the weights themselves (Loshchilov & Hutter 2019, algorithm 2)."""

    def _decayed(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        torch._foreach_mul_(self.parameters, 1 - self.learning_rate * self.weight_decay)
        return gradients


def build(settings: TrainingSettings, parameters: Iterable[Tensor]) -> Optimizer:
    """The optimizer that the settings name, at the start of a fit: no momentum, no averages yet."""
    if settings.optimizer == "sgd":
        return SGD(parameters, settings.learning_rate, settings.momentum, settings.weight_decay)
    kind = {"adam": Adam, "adamw": AdamW}[settings.optimizer]
    return kind(
        parameters,
        settings.learning_rate,
        beta1=settings.beta1,
        beta2=settings.beta2,
        epsilon=settings.epsilon,
        weight_decay=settings.weight_decay,
    )


def _check_keys(state: Mapping[str, Any], expected: set[str]) -> None:
    if set(state) != expected:
        raise ValueError(f"the optimizer's state must hold {', '.join(sorted(expected))}, got {sorted(state)!r:.60}")


def _some(tensors: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> str:
    listed = ", ".join(f"{dtype} {list(shape)}" for shape, dtype in tensors[:3])
    return f"{len(tensors)} tensors ({listed}{', …' if len(tensors) > 3 else ''})"
