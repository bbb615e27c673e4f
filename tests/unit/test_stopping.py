"""Rule: the first signal asks the run to stop, the next one stops it now; one that is sent twice at once is one."""

import signal
import time

import pytest

from common.errors import Interrupted
from server.stopping import TWICE_SECONDS, StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_next_one_stops(number: signal.Signals) -> None:
    told: list[str] = []
    with StopRequest().on_signals(told.append) as stop:
        signal.raise_signal(number)
        assert stop.requested
        time.sleep(TWICE_SECONDS)
        with pytest.raises(Interrupted, match="stopped at once"):
            signal.raise_signal(number)
    assert told == [f"{number.name}: stopping after this round; once more to stop now"]


def test_a_signal_to_process_and_group_is_one() -> None:
    """As ``timeout 60 python -m server`` sends it."""
    with StopRequest().on_signals(lambda _: None) as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested


def test_signals_mean_what_they_did_before_once_the_run_is_over() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest().on_signals(lambda _: None):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
