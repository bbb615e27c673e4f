"""How the tables of the campaigns write their figures."""

from collections.abc import Callable, Sequence
from statistics import median

NOT_RUN = "not run yet"
Form = Callable[[float], str]


def percent(share: float) -> str:
    """A share 0..1, such as ``98.30 %``."""
    return f"{share:.2%}".replace("%", " %")


def four_places(loss: float) -> str:
    """A loss."""
    return f"{loss:.4f}"


def minutes(seconds: float) -> str:
    """A duration."""
    return f"{seconds / 60:.1f} min"


def of_seeds(found: Sequence[float], wanted: int, form: Form) -> str:
    """Median, smallest and largest of one figure a seed, one for all alike; and how many there are, if some lack."""
    if not found:
        return NOT_RUN
    if wanted == 1:
        return form(found[0])
    least, largest = form(min(found)), form(max(found))
    missing = f"{len(found)} of {wanted} seeds" if len(found) < wanted else ""
    span = f"{least.removesuffix(' %')}–{largest}" if least != largest else ""
    within = ", ".join(filter(None, (span, missing)))
    return f"{form(median(found))} ({within})" if within else largest


def row(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
