"""Rule: while large packages are imported nobody looks for garbage, and afterwards all is as it was."""

import gc

import pytest

from common.importing import without_collector


@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_collector_rests_and_is_then_as_it_was(was_enabled: bool) -> None:
    states = []

    def fail() -> None:
        states.append(gc.isenabled())
        raise ImportError

    try:
        (gc.enable if was_enabled else gc.disable)()
        with pytest.raises(ImportError), without_collector():
            fail()
        states.append(gc.isenabled())
    finally:
        gc.enable()
    assert states == [False, was_enabled]
