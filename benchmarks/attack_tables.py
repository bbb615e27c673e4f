"""The tables of attacks in Markdown, from the ``metrics.jsonl`` of their runs and nothing else."""

from pathlib import Path

from benchmarks.attack_jobs import DEFENCES, KINDS, MOST_HOSTILE, Defence, Kind, job
from benchmarks.figures import NOT_RUN, percent, row
from benchmarks.hostile_nodes import ATTACKS

_TITLES: dict[Kind, str] = {"iid": "IID", "dirichlet": "Dirichlet 0.5"}
_DEFENCES: dict[Defence, str] = {
    "none": "FedAvg alone",
    "default": "default settings",
    "fedtrimmedavg": "`fedtrimmedavg`",
    "multikrum": "`multikrum`",
}


def tables(out: Path) -> str:
    """Test accuracy after the last round, a table for each division; of the runs in ``out`` that are finished."""
    return "\n\n".join(_table(kind, out) for kind in KINDS)


def _table(kind: Kind, out: Path) -> str:
    lines = [row(f"{_TITLES[kind]}: hostile of 10", *_DEFENCES.values()), "|" + "---|" * (1 + len(DEFENCES))]
    lines.append(row("none", *(_cell(defence, kind, "", 0, out) for defence in DEFENCES)))
    for attack, how in ATTACKS.items():
        for number in range(1, MOST_HOSTILE + 1):
            cells = [_cell(defence, kind, attack, number, out) for defence in DEFENCES]
            lines.append(row(f"{how.title}: {number}", *cells))
    return "\n".join(lines)


def _cell(defence: Defence, kind: Kind, attack: str, num_hostile: int, out: Path) -> str:
    asked = job(defence, kind, attack, num_hostile)
    return percent(float(asked.rows(out)[-1]["test_accuracy"])) if asked.finished(out) else NOT_RUN
