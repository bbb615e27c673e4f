"""Plays every part of ``make faults`` and writes what they came to into docs/reliability.md: half an hour.

A part that fails does not keep the others from being played; the page then says which one it was.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.campaign import write_between_marks
from common.command_line import PlainParser
from tests.faults.injector import ROOT
from tests.faults.outcome import table
from tests.faults.results import VARIABLE, read

DOCUMENT = ROOT / "docs" / "reliability.md"
PARTS = (
    ("tests.faults.crashes",),
    ("tests.faults.returning",),
    ("pytest", "-q", "tests/faults/test_damage.py"),
    ("tests.faults.network", "--schedules", "300"),
    ("tests.faults.deadlines", "--rounds", "1000"),
    ("pytest", "-q", "tests/e2e/test_wrong_clocks.py"),
)


def main() -> int:
    """Play them; 1 if one broke a promise."""
    PlainParser(prog="python -m tests.faults.everything", description=__doc__).parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "results.jsonl"
        environment = os.environ | {VARIABLE: str(kept), "EVERY_FAULT": "1", "GRPC_VERBOSITY": "NONE"}
        failed = [part for part in PARTS if _failed(part, environment)]
        write_between_marks(DOCUMENT, "faults", page(kept, failed, time.monotonic() - start))
    print(f"the table is in {DOCUMENT}")
    return int(bool(failed))


def page(kept: Path, failed: Sequence[Sequence[str]], seconds: float) -> str:
    """What stands in the document: all outcomes, what was measured beside, and what failed."""
    families, figures = read(kept)
    lines = [table(families), "", "| Measured beside | |", "|---|---|"]
    lines += [f"| {what} | {value} |" for what, value in figures]
    lines += ["", f"One `make faults`, {date.today():%d %B %Y}, {os.cpu_count()} cores, {seconds / 60:.0f} minutes."]
    if failed:
        lines += ["", f"**Not as promised: {', '.join(' '.join(part) for part in failed)}.**"]
    return "\n".join(lines)


def _failed(part: Sequence[str], environment: dict[str, str]) -> bool:
    print(f"=== {' '.join(part)}", flush=True)
    return subprocess.run([sys.executable, "-m", *part], cwd=ROOT, env=environment, check=False).returncode != 0


if __name__ == "__main__":
    raise SystemExit(main())
