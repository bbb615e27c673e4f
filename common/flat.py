"""A record of Flower's whose float32 arrays lie one behind another: what is done to all weights is one call.

A LeNet5 has ten tensors of which most are tiny, and a round looks at those of every node a dozen times: the calls
would take longer than what they do.
"""

import hashlib
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import lru_cache
from itertools import accumulate, pairwise
from math import prod
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from flwr import app as flower

from common import npy
from common.models import title

Form = tuple[tuple[str, tuple[int, ...]], ...]  # names and shapes, in order
Vector = npt.NDArray[np.float32]  # all values, in order, [N]
MAX_REMEMBERED = 64  # arrays of a form whose places are remembered; only a hostile update has more
_NOTHING: Vector = np.zeros(0, np.float32)


class ArrayRecord(flower.ArrayRecord):
    """The record that Flower makes of the same arrays, to whoever looks; they are views, made at the first look.

    It bears its parent's name because that is how Flower's engines tell what kind of thing travels.
    """

    form: Form
    vector: Vector

    def __init__(self, form: Form, vector: Vector) -> None:
        """Without a copy: ``vector`` cannot be written to any more."""
        vector.flags.writeable = False
        self.__dict__.update(form=form, vector=vector)

    def parts(self) -> Iterator[tuple[str, Vector]]:
        """Each array, as a view."""
        for (name, shape), (start, end) in zip(self.form, _bounds(self.form), strict=True):
            yield name, self.vector[start:end].reshape(shape)

    @property
    def sha256(self) -> str:
        """What ``common.models.weights_sha256`` gives for these weights."""
        pieces: list[bytes | memoryview] = []
        for (name, shape), (start, end) in zip(self.form, _bounds(self.form), strict=True):
            pieces += title(name, torch.float32, shape), self.vector[start:end].data
        return hashlib.sha256(b"".join(pieces)).hexdigest()

    @property
    def num_bytes(self) -> int:
        """Size of the arrays in NumPy's file format."""
        return _head_bytes(self.form) + self.vector.nbytes

    def __getitem__(self, name: str) -> flower.Array:
        return self._arrays[name]

    def __setitem__(self, name: str, array: flower.Array) -> None:
        raise TypeError(f"{name} cannot be set: the weights of this record are one vector; make another record")

    def __delitem__(self, name: str) -> None:
        del self._arrays[name]  # first: it may not be there
        kept = [(each, part) for each, part in self.parts() if each != name]
        vector = np.concatenate([part.reshape(-1) for _, part in kept]) if kept else _NOTHING
        self.__dict__.update(form=tuple((each, part.shape) for each, part in kept), vector=vector)

    def clear(self) -> None:
        """Let go of all weights."""
        self.__dict__.update(form=(), vector=_NOTHING, made={})

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self.form)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __eq__(self, other: object) -> bool:
        return dict(self) == dict(other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as Flower's have none

    def __reduce__(self) -> tuple[type[Self], tuple[Form, Vector]]:
        return type(self), (self.form, self.vector)

    def __repr__(self) -> str:
        return repr(self._arrays)

    def keys(self) -> KeysView[str]:
        """Names."""
        return self._arrays.keys()

    def values(self) -> ValuesView[flower.Array]:
        """Arrays."""
        return self._arrays.values()

    def items(self) -> ItemsView[str, flower.Array]:
        """Arrays by name."""
        return self._arrays.items()

    def copy(self) -> Self:
        """Another record of the same vector."""
        return type(self)(self.form, self.vector)

    @property
    def _arrays(self) -> dict[str, flower.Array]:
        if "made" not in self.__dict__:
            self.__dict__["made"] = {name: npy.Array(part) for name, part in self.parts()}
        made: dict[str, flower.Array] = self.__dict__["made"]
        return made


def form_of(state: Mapping[str, torch.Tensor]) -> Form:
    """Names and shapes of ``state``."""
    return tuple((name, tuple(value.shape)) for name, value in state.items())


def vector_of(state: Mapping[str, torch.Tensor]) -> Vector:
    """All values of ``state``, float32 and at least one tensor, as memory of its own."""
    return np.concatenate([value.numpy().reshape(-1) for value in state.values()])


def _bounds(form: Form) -> list[tuple[int, int]]:
    """Where each array lies in the vector: its first value, and the first one behind it."""
    return (_bounds_again if len(form) <= MAX_REMEMBERED else _new_bounds)(form)


def _new_bounds(form: Form) -> list[tuple[int, int]]:
    return list(pairwise(accumulate((prod(shape) for _, shape in form), initial=0)))


_bounds_again = lru_cache(maxsize=64)(_new_bounds)


@lru_cache(maxsize=64)
def _head_bytes(form: Form) -> int:
    return sum(npy.head_bytes(np.dtype(np.float32), shape) for _, shape in form)
