"""Rule: a codec loses no more than it says, and from any bytes it makes the model's shapes or an error of ours."""

import tracemalloc
import zlib

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.codec import Codec
from common.codecs import NAMES, Half, Quantiser, Sign, TopK, by_name
from common.errors import WireError
from common.models import State

CODECS: list[Codec] = [codec for name in NAMES if (codec := by_name(name, top_k=0.25)) is not None]
SHAPES = {"weight": (2, 3), "bias": (5,), "scale": ()}
STATES = st.fixed_dictionaries(
    {
        name: hnp.arrays(np.float32, shape, elements=st.floats(-100, 100, width=32)).map(
            lambda array: torch.from_numpy(array.copy())
        )
        for name, shape in SHAPES.items()
    }
)
SEEDS = st.integers(0, 2**31 - 1)


def vector(*values: float) -> State:
    return {"weight": torch.tensor(values)}


def packed(codec: Codec, state: State) -> bytes:
    return zlib.decompress(codec.encode(state))


def there_and_back(codec: Codec, state: State, generator: torch.Generator | None = None) -> State:
    return codec.decode(codec.encode(state, generator), state)


@given(state=STATES)
def test_half_precision_keeps_eleven_bits(state: State) -> None:
    for name, found in there_and_back(Half(), state).items():
        assert bool(((found - state[name]).abs() <= state[name].abs() * 2.0**-11 + 2.0**-25).all())


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (4, 7), (2, 1)])
@given(state=STATES, seed=SEEDS)
def test_a_quantiser_is_off_by_a_step_at_most_and_by_half_of_one_to_the_nearest(
    bits: int, most: int, state: State, seed: int
) -> None:
    codec = Quantiser(bits)
    nearest = there_and_back(codec, state)
    drawn = there_and_back(codec, state, torch.Generator().manual_seed(seed))
    for name, value in state.items():
        step = float(value.abs().max()) / most
        lost = torch.finfo(torch.float32).tiny  # below it, float32 itself has fewer digits
        assert float((nearest[name] - value).abs().max()) <= 0.5001 * step + lost
        assert float((drawn[name] - value).abs().max()) <= 1.0001 * step + lost


def test_the_mean_of_many_draws_is_the_value() -> None:
    state = vector(1.0, *[0.25] * 40_000)  # one in four of the quarters becomes 1, three 0
    drawn = there_and_back(Quantiser(2), state, torch.Generator().manual_seed(3))["weight"]
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert abs(float(drawn[1:].mean()) - 0.25) < 4 * (0.25 * 0.75 / 40_000) ** 0.5  # four standard deviations


def test_the_same_stream_draws_the_same_bytes() -> None:
    state = vector(*torch.linspace(-1, 1, 100).tolist())
    once, again = (Quantiser(4).encode(state, torch.Generator().manual_seed(5)) for _ in range(2))
    other = Quantiser(4).encode(state, torch.Generator().manual_seed(6))
    assert once == again != other


def test_what_is_packed_can_be_read_by_eye() -> None:
    scale = np.float32(7).tobytes()
    assert packed(Quantiser(4), vector(7.0, -7.0, 0.0, 3.0)) == scale + bytes([0x0E, 0xA7])  # 14, 0, 7, 10
    assert packed(Quantiser(2), vector(7.0, -7.0, 0.0, 3.0, 4.0)) == scale + bytes([0b01_01_00_10, 0b10])
    assert packed(Sign(), vector(1.0, -3.0, 0.0)) == np.float32(4 / 3).tobytes() + bytes([0b101])
    first_two = np.array([2, 3], "<u4").tobytes()  # the second value, and the third after it
    assert packed(TopK(0.4), vector(1.0, -3.0, 0.5, 0.0, 2.0)) == first_two + np.array([-3, 2], "<f4").tobytes()


def test_the_largest_of_all_tensors_are_kept() -> None:
    state = {"small": torch.tensor([1.0, 2.0]), "large": torch.tensor([[3.0, -9.0], [8.0, 4.0]])}
    found = there_and_back(TopK(0.34), state)
    assert found["small"].tolist() == [0.0, 0.0]
    assert found["large"].tolist() == [[0.0, -9.0], [8.0, 0.0]]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_nothing_is_nothing(codec: Codec) -> None:
    state = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    found = there_and_back(codec, state, torch.Generator().manual_seed(1))
    assert all(bool((value == 0).all()) for value in found.values())


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@settings(max_examples=150)
@given(
    state=STATES, place=st.integers(0, 999), new=st.binary(max_size=4), taken=st.integers(0, 3), is_inside=st.booleans()
)
def test_a_changed_payload_is_refused_or_fills_the_shapes(
    codec: Codec, state: State, place: int, new: bytes, taken: int, is_inside: bool
) -> None:
    payload = codec.encode(state)
    honest = zlib.decompress(payload) if is_inside else payload
    at = place * len(honest) // 999
    changed = honest[:at] + new + honest[at + taken :]
    try:
        found = codec.decode(zlib.compress(changed) if is_inside else changed, state)
    except WireError:
        return
    assert {name: tuple(value.shape) for name, value in found.items()} == SHAPES
    assert all(value.dtype == torch.float32 and bool(value.isfinite().all()) for value in found.values())


@pytest.mark.parametrize(
    ("codec", "inside", "reason"),
    [
        (Half(), b"\x00\x7c", "weight holds values that are not finite"),
        (Quantiser(8), np.float32(np.nan).tobytes() + b"\x00", "weight holds values that are not finite"),
        (Quantiser(8), np.float32(1).tobytes() + b"\xff", "the int8 payload holds a code that no value has"),
        (Quantiser(2), np.float32(1).tobytes() + b"\x03", "the int2 payload holds a code that no value has"),
        (Sign(), np.float32(np.inf).tobytes() + b"\x00", "weight holds values that are not finite"),
        (TopK(1.0), np.array([2, 0], "<u4").tobytes(), "the top-k payload names places that do not exist"),
        (TopK(1.0), np.array([0, 0], "<u4").tobytes(), "the top-k payload names places that do not exist"),
        (Half(), b"\x00", "the float16 payload does not hold the 2 bytes that this model takes"),
        (Half(), b"\x00\x00\x00", "the float16 payload does not hold the 2 bytes that this model takes"),
    ],
)
def test_a_payload_that_lies_is_refused_with_the_reason(codec: Codec, inside: bytes, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        codec.decode(zlib.compress(inside), vector(0.0))
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    "payload", [b"", b"no deflated bytes", zlib.compress(bytes(2))[:-1], zlib.compress(bytes(2)) * 2]
)
def test_what_is_cut_or_doubled_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match="the float16 payload"):
        Half().decode(payload, vector(0.0))


def test_a_payload_that_swells_takes_no_memory() -> None:
    bomb = zlib.compress(bytes(2**26))
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            Quantiser(4).decode(bomb, {"weight": torch.zeros(1000)})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**18


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_encoded(value: float) -> None:
    with pytest.raises(WireError, match="there are values that are not finite"):
        Sign().encode(vector(1.0, value))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(
        WireError, match="unknown codec 'int3', expected one of float32, float16, int8, int4, int2, sign"
    ):
        by_name("int3", 0.01)
