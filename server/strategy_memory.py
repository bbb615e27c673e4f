"""What Flower's strategies remember from round to round beside the global model: taken out, put back, forgotten."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from flwr.serverapp.strategy import Strategy

from common.errors import RunDirectoryError
from common.models import State
from server.memory import Plain

MEMORIES = ("momentum_vector", "m_t", "v_t")  # attributes of theirs, one array a weight in each


def memory(strategy: Strategy) -> dict[str, Plain]:
    """What ``strategy`` must not forget over a restart: ``{attribute: [tensor, …]}``, in the order of the weights."""
    held = {name: getattr(strategy, name, None) for name in MEMORIES}
    return {
        name: [torch.from_numpy(np.array(array)) for array in (value.values() if isinstance(value, dict) else value)]
        for name, value in held.items()
        if value
    }


def restore(strategy: Strategy, remembered: Mapping[str, Plain], state: State) -> None:
    """Give ``strategy`` back what ``memory`` gave; ``state`` is the global model of then.

    Raises:
        RunDirectoryError: that is no memory of this strategy for this model.
    """
    for name, tensors in remembered.items():
        fits = name in MEMORIES and hasattr(strategy, name) and isinstance(tensors, list)
        if not fits or [_shape(each) for each in tensors] != [value.shape for value in state.values()]:  # type: ignore[union-attr]
            raise RunDirectoryError(
                f"the checkpoint holds a {name!r:.40} that the strategy cannot use: resume with the settings of the run"
            )
        arrays = [each.numpy() for each in tensors]  # type: ignore[union-attr]
        setattr(strategy, name, arrays if name == "momentum_vector" else dict(zip(state, arrays, strict=True)))


def forget(strategy: Strategy) -> None:
    """Back to how it was built; FedAvgM then takes the global model from the next round's tasks."""
    for name in (*MEMORIES, "current_arrays"):
        if hasattr(strategy, name):
            setattr(strategy, name, None)


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, torch.Tensor) else None
