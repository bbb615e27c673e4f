"""The codecs by name: half precision, whole multiples of a step, signs, and the largest values alone."""

import numpy as np
import numpy.typing as npt
import torch

from common.codec import Codec, Vector
from common.errors import WireError

PLAIN = "float32"  # the values as they are: no codec


def by_name(name: str, top_k: float) -> Codec | None:
    """The codec of that name, None for ``PLAIN``.

    Args:
        name: one of ``NAMES``.
        top_k: share of the values that the codec ``top-k`` keeps, (0, 1].

    Raises:
        WireError: there is no such codec, or no such share.
    """
    if name == TopK.name:
        return TopK(top_k)
    if name not in _CODECS:
        raise WireError(f"unknown codec {name!r:.40}, expected one of {', '.join(NAMES)}")
    return _CODECS[name]


class Half(Codec):
    """IEEE half precision: 11 significant bits, up to 65,504."""

    name = "float16"

    def packed_bytes(self, count: int) -> int:  # noqa: D102 — this and the next two as ``Codec`` says
        return 2 * count

    def pack(self, values: Vector, generator: torch.Generator | None) -> bytes:  # noqa: D102
        del generator
        with np.errstate(over="ignore"):  # decoding refuses infinity
            return values.astype("<f2").tobytes()

    def unpack(self, packed: memoryview, count: int) -> Vector:  # noqa: D102
        return np.frombuffer(packed, "<f2", count).astype(np.float32)


class Quantiser(Codec):
    """Whole multiples of a step, a scale per tensor: its largest magnitude is the largest multiple (QSGD).

    With a generator, a value goes to one of its two neighbours by a chance that makes the mean of many the value.
    """

    def __init__(self, bits: int) -> None:
        """``bits`` a value: 2, 4 or 8; the multiples are -(2**(bits-1) - 1) to 2**(bits-1) - 1."""
        self.name = f"int{bits}"
        self._bits = bits
        self._most = 2 ** (bits - 1) - 1

    def packed_bytes(self, count: int) -> int:  # noqa: D102
        return 4 + -(-count * self._bits // 8)

    def pack(self, values: Vector, generator: torch.Generator | None) -> bytes:  # noqa: D102
        scale = np.abs(values).max()
        multiples = values.astype(np.float64) * (self._most / float(scale) if scale else 0.0)
        if generator is None:
            multiples = np.rint(multiples)
        else:
            multiples = np.floor(multiples + torch.rand(len(values), generator=generator).numpy())
        codes = (np.clip(multiples, -self._most, self._most) + self._most).astype(np.uint8)
        return np.array(scale, "<f4").tobytes() + _packed(codes, self._bits)

    def unpack(self, packed: memoryview, count: int) -> Vector:  # noqa: D102
        codes = _unpacked(packed[4:], self._bits, count)
        if codes.max() > 2 * self._most:
            raise WireError(f"the {self.name} payload holds a code that no value has")
        step = np.frombuffer(packed[:4], "<f4") / np.float32(self._most)  # [1]
        values: Vector = codes.astype(np.float32) - np.float32(self._most)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused later
            values *= step
        return values


class Sign(Codec):
    """One bit a value, and the mean magnitude of a tensor (EF-signSGD, Karimireddy et al. 2019)."""

    name = "sign"
    keeps_error = True

    def packed_bytes(self, count: int) -> int:  # noqa: D102
        return 4 + -(-count // 8)

    def pack(self, values: Vector, generator: torch.Generator | None) -> bytes:  # noqa: D102
        del generator
        mean = np.abs(values).mean(dtype=np.float64)
        return np.array(mean, "<f4").tobytes() + _packed((values >= 0).astype(np.uint8), 1)

    def unpack(self, packed: memoryview, count: int) -> Vector:  # noqa: D102
        mean = np.frombuffer(packed[:4], "<f4")  # [1]
        values: Vector = np.where(_unpacked(packed[4:], 1, count) == 1, mean, -mean)
        return values


class TopK(Codec):
    """The largest values of all tensors together and where they stand; the others are 0 (Stich et al. 2018)."""

    name = "top-k"
    keeps_error = True
    is_per_tensor = False

    def __init__(self, share: float) -> None:
        """``share`` of all values are kept, (0, 1], and at least one."""
        if not 0 < share <= 1:
            raise WireError(f"{self.name} keeps a share of the values, expected more than 0 and up to 1, got {share:g}")
        self._share = share

    def packed_bytes(self, count: int) -> int:  # noqa: D102
        return 8 * self._kept(count)

    def pack(self, values: Vector, generator: torch.Generator | None) -> bytes:  # noqa: D102
        del generator
        order = np.argsort(-np.abs(values), kind="stable")  # of equal ones the first, on every machine
        places = np.sort(order[: self._kept(len(values))])
        return np.diff(places, prepend=-1).astype("<u4").tobytes() + values[places].astype("<f4").tobytes()

    def unpack(self, packed: memoryview, count: int) -> Vector:  # noqa: D102
        kept = self._kept(count)
        steps = np.frombuffer(packed, "<u4", kept).astype(np.int64)
        places = np.cumsum(steps) - 1
        if steps.min() < 1 or places[-1] >= count:
            raise WireError(f"the {self.name} payload names places that do not exist")
        values = np.zeros(count, np.float32)
        values[places] = np.frombuffer(packed, "<f4", kept, offset=4 * kept)
        return values

    def _kept(self, count: int) -> int:
        return max(1, round(self._share * count))


def _packed(codes: npt.NDArray[np.uint8], bits: int) -> bytes:
    """Codes of ``bits`` bits each, the first in the lowest bits of a byte."""
    a_byte = 8 // bits
    columns = np.pad(codes, (0, -len(codes) % a_byte)).reshape(-1, a_byte)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    joined: npt.NDArray[np.uint8] = np.bitwise_or.reduce(columns << shifts, axis=1)
    return joined.tobytes()


def _unpacked(packed: memoryview, bits: int, count: int) -> npt.NDArray[np.uint8]:
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    columns = np.frombuffer(packed, np.uint8)[:, None] >> shifts & np.uint8(2**bits - 1)
    return columns.reshape(-1)[:count]


_CODECS: dict[str, Codec | None] = {
    PLAIN: None,
    **{codec.name: codec for codec in (Half(), Quantiser(8), Quantiser(4), Quantiser(2), Sign())},
}
NAMES = (*_CODECS, TopK.name)  # all that this version knows
