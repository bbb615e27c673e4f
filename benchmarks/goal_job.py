"""A run that ends when it has reached a goal; what came of it is kept in a file of results."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.job import Job, Run
from benchmarks.results import Result
from common.layers import from_assignments, from_file
from server.storage.settings import versions

HELD_OUT = "node_accuracy_mean"  # a measure for settings that are still to be chosen
_VERSIONS = ("fedge", "torch", "flwr", "numpy")
_NO_CHOICE = {"federation.rounds", "federation.clients"}  # the job and --simulate say how many


@dataclass(frozen=True)
class GoalJob(Job):
    """A job that is finished at ``goal``, or after ``rounds`` without it."""

    goal: float = 1.0  # of its measure
    file: Path = Path("results.jsonl")  # of results

    @property
    def settings(self) -> dict[str, Any]:
        """All that is chosen otherwise than in ``configs/default.yaml``."""
        given = [value for flag, value in zip(self.flags, self.flags[1:], strict=False) if flag == "--set"]
        chosen = {**from_file(self._file)[1], **from_assignments(given)[1]}
        return {key: value for key, value in chosen.items() if key not in _NO_CHOICE}

    def result(self, kept: Mapping[str, Result] | None = None) -> Result | None:
        """What is kept of such a run, in ``kept`` or the file; one with other settings or fewer rounds is none."""
        found = (results.read(self.file) if kept is None else kept).get(self.name)
        is_this = found is not None and found.settings == self.settings and found.measure == self.measure
        return found if found and is_this and self._is_over(found.accuracy) else None

    def rows(self, out: Path) -> Run:
        """What is measured so far, to the goal."""
        rows = super().rows(out)
        end = next((number for number, row in enumerate(rows) if _accuracy(row, self.measure) >= self.goal), len(rows))
        return rows[: end + 1]

    def reached(self, out: Path) -> bool:
        """Whether the run in ``out`` is at its goal: what it does from there on is of no use."""
        rows = self.rows(out)
        return bool(rows) and _accuracy(rows[-1], self.measure) >= self.goal

    def finished(self, out: Path) -> bool:
        """Whether the result is kept."""
        return self.result() is not None

    def check(self, out: Path) -> None:
        """As ``Job.check``, where the run is not finished; what a killed campaign saw the end of is kept now."""
        if not self.finished(out):
            super().check(out)
            self.keep(out)

    def keep(self, out: Path) -> None:
        """Write the result down if the run is over."""
        rows = self.rows(out)
        curve = [_accuracy(row, self.measure) for row in rows]
        if not self._is_over(curve):
            return
        traffic = [row["bytes_down"] + row["bytes_up"] for row in rows[1:]]
        found = {package: version for package, version in versions().items() if package in _VERSIONS}
        today = date.today().isoformat()
        results.append(self.file, Result(self.name, self.settings, self.measure, curve, traffic, found, today))

    def _is_over(self, curve: object) -> bool:
        assert isinstance(curve, list)
        return len(curve) > self.rounds or (bool(curve) and max(curve) >= self.goal)


def _accuracy(row: Mapping[str, Any], measure: str) -> float:
    """0..1; nodes do not test the untrained model, which knows nothing."""
    return float(row.get(measure) or 0.0)
