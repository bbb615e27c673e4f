"""Reads the weights in an update, plain or under a codec: float32 tensors of the model's form, or an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from flwr.app import ArrayRecord

from common import flat
from common.arrays import codec_of, from_encoded, to_ndarray, to_state
from common.codec import Codec
from common.codecs import PLAIN
from common.errors import WireError
from common.models import State, weights_sha256


@dataclass(frozen=True)
class Origin:
    """What the updates of a round start from, made ready once for all of them."""

    state: State  # the global model
    base: State  # what the nodes make of it: differs where the broadcast rounds
    form: flat.Form
    vector: flat.Vector  # the global model's weights

    @classmethod
    def of(cls, state: State, base: State | None = None) -> Self:
        """That of a global model; the nodes have it as it is, or as ``base``."""
        return cls(state, state if base is None else base, flat.form_of(state), flat.vector_of(state))


@dataclass(frozen=True)
class Learned:
    """What an update comes to."""

    arrays: flat.ArrayRecord  # the weights
    sha256: str  # of the weights
    said: str  # digest of what came, however it was deflated: of the weights, or of the change


def learned(record: ArrayRecord, codec: Codec | None, origin: Origin) -> Learned:
    """The weights that ``record`` stands for; whether they are finite is left to whoever measures them.

    Args:
        record: hostile until checked.
        codec: that was asked for; None: the weights as they are.
        origin: of the task's round; where its base differs, the node's change is added to the global model, so that
            rounding loses nothing of it.

    Raises:
        WireError: with the reason why they cannot be used.
    """
    if codec is None and codec_of(record) == PLAIN:
        arrays = _checked_arrays(record, origin)
        if origin.base is origin.state:
            return Learned(arrays, digest := arrays.sha256, digest)
        change = {name: value - origin.base[name] for name, value in to_state(arrays).items()}
    else:
        change = from_encoded(record, codec, origin.state)
    state = {name: value + change[name] for name, value in origin.state.items()}
    arrays = flat.ArrayRecord(origin.form, flat.vector_of(state))
    return Learned(arrays, arrays.sha256, weights_sha256(change))


def listed(names: Mapping[str, object]) -> str:
    """How many there are, and the first of them, for a reason."""
    first = ", ".join(str(name)[:40] for name in list(names)[:6])
    return f"{len(names)} ({first}{', …' if len(names) > 6 else ''})"


def _checked_arrays(record: ArrayRecord, origin: Origin) -> flat.ArrayRecord:
    if isinstance(record, flat.ArrayRecord) and record.form == origin.form:
        return record.copy()
    reference = origin.state
    if set(record) != set(reference):
        raise WireError(f"tensors {listed(record)}, expected {listed(reference)}")
    for name, expected in reference.items():
        array = record[name]
        if array.shape != tuple(expected.shape):
            raise WireError(f"{name} has shape {array.shape!r:.60}, expected {tuple(expected.shape)}")
        if array.dtype != "float32":
            raise WireError(f"{name} has dtype {array.dtype!r:.20}, expected 'float32'")
    return flat.ArrayRecord(
        origin.form, np.concatenate([to_ndarray(name, record[name]).reshape(-1) for name in reference])
    )
