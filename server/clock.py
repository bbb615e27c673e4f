"""This machine's clocks: its uptime, which nobody sets, and its wall clock, which may say anything."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

WRITTEN = datetime(2026, 11, 1, tzinfo=UTC)  # no clock that is right shows less
SET_SECONDS = 60.0  # by less, a clock is being kept right, or the machine was busy
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HARMLESS = "nothing that is learned depends on it; the times in logs and in TensorBoard do"


def uptime_seconds() -> float:
    """Seconds since this machine started, those in which it slept among them where it can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def boot_id() -> str:
    """A text that is the same until this machine starts again; '' where there is none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()[:64]
    except (OSError, UnicodeDecodeError):
        return ""


class ClockWatch:
    """Notices a wall clock that cannot be right, and one that is set while a run goes on."""

    def __init__(self, wall: Callable[[], float] = time.time, uptime: Callable[[], float] = uptime_seconds) -> None:
        self._wall, self._uptime = wall, uptime
        self._lead: float | None = None  # of the wall clock over the uptime, at the last look

    def look(self) -> str:
        """A warning for a person, or ''."""
        former, self._lead = self._lead, self._wall() - self._uptime()
        if former is None:
            now = self._wall()
            says = f"this machine's clock says {datetime.fromtimestamp(now, UTC):%Y-%m-%d}, which cannot be"
            return f"{says}: {_HARMLESS}" if now < WRITTEN.timestamp() else ""
        seconds = self._lead - former
        if abs(seconds) < SET_SECONDS:
            self._lead = former  # small steps add up
            return ""
        way = "forward" if seconds > 0 else "back"
        return f"this machine's clock was set {way} by {_duration(abs(seconds))}: {_HARMLESS}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    parts = ((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)
