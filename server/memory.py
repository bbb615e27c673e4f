"""What a run remembers from round to round: the form that a checkpoint can keep it in, and reading it again."""

import torch
from torch import Tensor

from common.models import State

Plain = None | bool | int | float | str | Tensor | list["Plain"] | dict[str, "Plain"]  # what weights_only loads


def as_dict(value: Plain) -> dict[str, Plain]:
    """``value``, which must be a dict.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} is no dict")
    return value


def as_state(value: Plain, like: State | None = None) -> State:
    """``value``, which must be a dict of tensors, of the names, shapes and dtypes of ``like`` if that is given.

    Raises:
        TypeError: it is not.
    """
    state = {name: tensor for name, tensor in as_dict(value).items() if isinstance(tensor, Tensor)}
    if len(state) != len(as_dict(value)):
        raise TypeError("a model is made of tensors")
    if like is not None and _layout(state) != _layout(like):
        raise TypeError("a model of another form")
    return state


def _layout(state: State) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, value.shape, value.dtype) for name, value in state.items()]
