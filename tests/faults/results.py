"""What the parts of one ``make faults`` came to, a JSON line each, in the file that ``FAULTS_RESULTS`` names."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from tests.faults.outcome import Outcome

VARIABLE = "FAULTS_RESULTS"
Families = dict[str, list[Outcome]]  # outcomes by the family of their schedules, in the order they were played


def keep(family: str, outcome: Outcome) -> None:
    """Add an outcome, if anybody asked to."""
    _append({"family": family} | asdict(outcome))


def keep_figure(what: str, value: str) -> None:
    """Add something that was measured beside, if anybody asked to."""
    _append({"figure": what, "value": value})


def read(path: Path) -> tuple[Families, list[tuple[str, str]]]:
    """All outcomes by family, and all figures, in the order they came; of no file nothing."""
    families: Families = {}
    figures: list[tuple[str, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        fields = json.loads(line)
        if "figure" in fields:
            figures.append((fields["figure"], fields["value"]))
        else:
            families.setdefault(fields.pop("family"), []).append(Outcome(**fields))
    return families, figures


def _append(line: dict[str, object]) -> None:
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a", encoding="utf-8") as sink:
            print(json.dumps(line), file=sink)
