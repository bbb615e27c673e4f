"""A ``state_dict`` as Flower's record of arrays, and back: what comes in is typed and bounded, never unpickled."""

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from common.errors import WireError
from common.models import State
from common.npy import STYPE, read, to_array


def to_record(state: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """A ``state_dict`` as Flower's record, bit for bit."""
    return ArrayRecord({name: to_array(value.numpy()) for name, value in state.items()})


def to_state(record: ArrayRecord) -> State:
    """Flower's record as a ``state_dict``, bit for bit.

    Raises:
        WireError: an array's bytes are not the NumPy array that it claims.
    """
    return {name: torch.from_numpy(to_ndarray(name, array)) for name, array in record.items()}


def to_ndarray(name: str, array: Array) -> np.ndarray:
    """The values of one array of a record; never unpickles.

    Raises:
        WireError: they are not the NumPy array that the record claims.
    """
    if array.stype != STYPE:
        raise WireError(f"{name} is serialised as {array.stype!r:.40}, expected 'numpy.ndarray'")
    values = read(array.data)
    if values is None or values.shape != tuple(array.shape) or str(values.dtype) != array.dtype:
        raise WireError(f"{name} does not hold the {array.dtype!r:.20} array of shape {array.shape!r:.60} it claims")
    return values
