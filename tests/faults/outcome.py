"""What came of one fault schedule, and the table of many."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One schedule: what was done to the run, and what was left to explain.

    Attributes:
        schedule: its name; it can be run again by it.
        num_faults: faults that struck (a random kill may come too late to).
        finished: whether the run reached its last round.
        identical: whether its models are, bit for bit, those of the run without faults, or those that the accepted
            updates of its ledger average to; None where there are none to compare.
        issued, accepted, rejected, expired: tasks that the finished rounds issued, and how they ended in the ledger.
        late: how many were accepted in a later round than their own.
        problems: what should not be so; empty = all is explained.
    """

    schedule: str
    num_faults: int
    finished: bool
    identical: bool | None
    issued: int = 0
    accepted: int = 0
    rejected: int = 0
    expired: int = 0
    late: int = 0
    problems: tuple[str, ...] = ()


HEAD = """\
| Schedules | Runs | Faults | Finished | Bit-identical | Issued | = accepted | of these late | + rejected | + expired | Unexplained |
|---|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


def table(families: Mapping[str, Sequence[Outcome]]) -> str:
    """One line a family of schedules, in Markdown, and one for all of them."""
    rows = [_row(name, outcomes) for name, outcomes in families.items()]
    everything = [outcome for outcomes in families.values() for outcome in outcomes]
    return "\n".join([HEAD, *rows, _row("**all**", everything)])


def _row(name: str, outcomes: Sequence[Outcome]) -> str:
    comparable = [outcome for outcome in outcomes if outcome.identical is not None]
    same = f"{_count(o.identical for o in comparable):,} of {len(comparable):,}" if comparable else "–"
    cells = [
        name,
        f"{len(outcomes):,}",
        f"{sum(o.num_faults for o in outcomes):,}",
        f"{_count(o.finished for o in outcomes):,}",
        same,
        *_tasks(outcomes),
        f"{_count(bool(o.problems) for o in outcomes):,}",
    ]
    return f"| {' | '.join(cells)} |"


def _tasks(outcomes: Sequence[Outcome]) -> list[str]:
    sums = [
        sum(c) for c in zip(*((o.issued, o.accepted, o.late, o.rejected, o.expired) for o in outcomes), strict=True)
    ]
    return [f"{number:,}" for number in sums] if sums[0] else ["–"] * len(sums)


def _count(truths: Iterable[bool | None]) -> int:
    return sum(map(bool, truths))
