"""Rule: weights have the same fingerprint if they are the same bits, and else another one."""

import numpy as np
import xxhash

from server.updates.fingerprint import fingerprint


def test_it_is_that_of_the_bits() -> None:
    weights = np.arange(1000, dtype=np.float32)
    assert fingerprint(weights) == fingerprint(weights.copy())
    one_off = weights.copy()
    one_off[999] = np.nextafter(one_off[999], np.float32(0.0))
    assert len({fingerprint(weights), fingerprint(one_off), fingerprint(weights[::-1].copy())}) == 3
    assert fingerprint(np.zeros(1, np.float32)) != fingerprint(-np.zeros(1, np.float32))  # equal numbers, other bits


def test_nobody_knows_it_beforehand() -> None:
    weights = np.ones(10, np.float32)
    assert fingerprint(weights) != xxhash.xxh3_128_intdigest(weights.tobytes())
