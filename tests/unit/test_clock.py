"""Rule: a wall clock that cannot be right, or is set, gets a sentence; one that is kept right gets none."""

import pytest

from server.clock import ClockWatch, boot_id, uptime_seconds

DAY = 86_400.0
NOVEMBER = 1_795_000_000.0  # 2026-11-18
HARMLESS = "nothing that is learned depends on it; the times in logs and in TensorBoard do"


class Clocks:
    def __init__(self, wall: float) -> None:
        self.wall, self.uptime = wall, 100.0
        self.watch = ClockWatch(lambda: self.wall, lambda: self.uptime)

    def pass_by(self, seconds: float, jump_seconds: float = 0.0) -> str:
        self.uptime += seconds
        self.wall += seconds + jump_seconds
        return self.watch.look()


@pytest.mark.parametrize(
    ("jump_seconds", "said"),
    [(DAY, "forward by 1 d"), (-DAY, "back by 1 d"), (-3660.0, "back by 1 h 1 min"), (60.0, "forward by 1 min")],
)
def test_a_clock_that_is_set_is_noticed_once(jump_seconds: float, said: str) -> None:
    clocks = Clocks(NOVEMBER)
    assert clocks.watch.look() == ""
    assert clocks.pass_by(5 * DAY) == ""
    assert clocks.pass_by(1.0, jump_seconds) == f"this machine's clock was set {said}: {HARMLESS}"
    assert clocks.pass_by(1.0) == ""


def test_a_clock_that_is_kept_right_is_not_worth_a_word_until_it_went_far() -> None:
    clocks = Clocks(NOVEMBER)
    clocks.watch.look()
    said = [clocks.pass_by(3600.0, 25.0) for _ in range(3)]
    assert said == ["", "", f"this machine's clock was set forward by 1 min: {HARMLESS}"]  # 75 s


def test_a_machine_that_does_not_know_the_time_is_told_so() -> None:
    clocks = Clocks(3 * DAY)
    assert clocks.watch.look() == f"this machine's clock says 1970-01-04, which cannot be: {HARMLESS}"
    assert clocks.pass_by(60.0) == ""
    assert "was set forward by 20" in clocks.pass_by(60.0, NOVEMBER)  # about 20,775 days


def test_this_machines_uptime_goes_on_and_its_start_stays() -> None:
    first = uptime_seconds()
    assert 0 < first <= uptime_seconds()
    assert boot_id() == boot_id()
