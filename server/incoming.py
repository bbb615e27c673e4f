"""Reads the weights in an update, plain or under a codec: float32 tensors of the model's form, or an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from flwr.app import ArrayRecord

from common import flat
from common.arrays import codec_of, from_encoded, to_ndarray
from common.codec import Codec
from common.codecs import PLAIN
from common.errors import WireError
from common.models import State
from server.updates.fingerprint import fingerprint


@dataclass(frozen=True)
class Origin:
    """What the updates of a round start from, made ready once for all of them."""

    state: State  # the global model
    form: flat.Form
    vector: flat.Vector  # its weights
    base: flat.Vector | None  # what the nodes make of them; None: the same

    @classmethod
    def of(cls, state: State, base: State | None = None) -> Self:
        """That of a global model; the nodes have it as it is, or as ``base`` where the broadcast rounds."""
        heard = None if base is None or base is state else flat.vector_of(base)
        return cls(state, flat.form_of(state), flat.vector_of(state), heard)


@dataclass(frozen=True)
class Learned:
    """What an update comes to."""

    arrays: flat.ArrayRecord  # the weights
    fingerprint: int  # of the weights
    said: int  # fingerprint of what came, however it was deflated: of the weights, or of the change


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
        if origin.base is None:
            return Learned(arrays, said := fingerprint(arrays.vector), said)
        heard, base = arrays.vector, origin.base
    else:
        heard, base = flat.vector_of(from_encoded(record, codec, origin.state)), None
    with np.errstate(over="ignore", invalid="ignore"):  # see above
        change = heard if base is None else heard - base
        weights = origin.vector + change
    return Learned(flat.ArrayRecord(origin.form, weights), fingerprint(weights), fingerprint(change))


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
