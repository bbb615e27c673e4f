"""Numbers and foreign text as a person reads them in a terminal."""

from __future__ import annotations

import math

from common.texts import one_line


def printable(text: str, limit: int) -> str:
    """``text`` on one line of at most ``limit`` characters, without control or direction characters."""
    calm = one_line(" ".join(text[: 4 * limit].split()))
    return calm if len(calm) <= limit else f"{calm[: limit - 1]}…"


def duration(seconds: float) -> str:
    """Seconds for a person: 6.1 s, 2:03, 1:02:03."""
    if not math.isfinite(seconds):
        return "-"
    return f"{seconds:.1f} s" if seconds < 99.95 else clock(seconds)


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, hours before them where there are any."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def share(fraction: float) -> str:
    """A fraction (0..1) as whole percent."""
    return f"{fraction * 100:.0f} %"


def percent(fraction: float) -> str:
    """A fraction (0..1) as percent, always seven columns wide."""
    text = f"{fraction * 100:.2f}"
    return f"{text if len(text) <= 5 else '100.0':>5} %"


def loss(value: float) -> str:
    """A loss in six columns, a dash where there is none."""
    if math.isnan(value):
        return f"{'-':>6}"
    return f"{value:6.4f}" if value < 9.9999 else f"{value:6.2f}" if value < 999 else f"{value:6.0e}"


def count(number: int, noun: str) -> str:
    """A number with its noun in the singular or the plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
