"""What a codec is: float32 tensors as few bytes, and back. No Flower, no I/O, no memory.

A payload holds values alone. Names and shapes are those of the model, which both sides know, so how
much is packed is known before a byte of it is read. Packed values are deflated: most of a difference
lies near zero, so its bytes repeat (QSGD, Alistarh et al. 2017, uses Elias codes to the same end).
The codecs themselves: ``common.codecs``.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch

from common.errors import WireError
from common.models import State

Vector = npt.NDArray[np.float32]  # values of one tensor, or of all, [N], N >= 1
Layout = Mapping[str, torch.Tensor]  # names and shapes; the values do not matter


class Codec(ABC):
    """One way to write values down; a subclass says how a vector is packed."""

    name: str
    keeps_error = False  # whether what a payload leaves out must be added to what the next one says
    is_per_tensor = True  # whether every tensor is packed alone, or all as one vector

    def encode(self, state: State, generator: torch.Generator | None = None) -> bytes:
        """The payload for float32 tensors.

        Args:
            state: finite values.
            generator: where stochastic rounding draws from; None = round to the nearest.

        Raises:
            WireError: a value is not finite.
        """
        vectors = [np.asarray(value.numpy(), order="C").reshape(-1) for value in state.values()]
        if not all(np.isfinite(vector).all() for vector in vectors):
            raise WireError("there are values that are not finite")
        parts = vectors if self.is_per_tensor else [np.concatenate(vectors)]
        return zlib.compress(b"".join([self.pack(part, generator) for part in parts]))

    def decode(self, payload: bytes, layout: Layout) -> State:
        """Float32 tensors of the names and shapes in ``layout``; takes a few times their memory, whatever came.

        Raises:
            WireError: the payload is not one of this codec for this layout, or a value is not finite.
        """
        counts = [value.numel() for value in layout.values()]
        parts = counts if self.is_per_tensor else [sum(counts)]
        sizes = [self.packed_bytes(count) for count in parts]
        packed = memoryview(self._inflated(payload, sum(sizes)))
        unpacked = [
            self.unpack(packed[end - size : end], n)
            for end, size, n in zip(accumulate(sizes), sizes, parts, strict=True)
        ]
        vectors = np.split(np.concatenate(unpacked), list(accumulate(counts))[:-1])
        state: State = {}
        for (name, value), vector in zip(layout.items(), vectors, strict=True):
            if not np.isfinite(vector).all():
                raise WireError(f"{name} holds values that are not finite")
            state[name] = torch.from_numpy(vector).reshape(value.shape)
        return state

    @abstractmethod
    def packed_bytes(self, count: int) -> int:
        """Bytes of a packed vector of so many values."""

    @abstractmethod
    def pack(self, values: Vector, generator: torch.Generator | None) -> bytes:
        """A vector as ``packed_bytes`` bytes, not yet deflated."""

    @abstractmethod
    def unpack(self, packed: memoryview, count: int) -> Vector:
        """The vector in ``packed_bytes`` bytes.

        Raises:
            WireError: ``pack`` writes no such bytes.
        """

    def _inflated(self, payload: bytes, size: int) -> bytes:
        stream = zlib.decompressobj()
        try:
            packed = stream.decompress(payload, size + 1)  # one more would show that there is too much
        except zlib.error:
            raise WireError(f"the {self.name} payload is damaged") from None
        if len(packed) != size or not stream.eof or stream.unused_data:
            raise WireError(f"the {self.name} payload does not hold the {size:,} bytes that this model takes")
        return packed
