"""Nodes whose updates are unusable time after time: counted, set aside for the rest of the run, and told so."""

from collections.abc import Mapping
from dataclasses import replace

from server.grids import Node
from server.report import NodeReport, Round

COUNTER = "strikes/"  # before a node's name, among the counters of a checkpoint


class Strikes:
    """Faults in a row, by node name (docs/decisions/0011-strikes-in-a-row.md).

    A fault is an update that no honest training makes. Neither what a node reports of its own troubles, nor time, nor a
    round that failed as a whole, adds to them or takes from them; an accepted update clears them.
    """

    def __init__(self, most: int, counters: Mapping[str, int]) -> None:
        """``most`` sets a node aside, 0 never does; ``counters`` are a checkpoint's."""
        self._most = most
        found = {name.removeprefix(COUNTER): count for name, count in counters.items() if name.startswith(COUNTER)}
        self._faults = found if most else {}

    def admits(self, node: Node) -> bool:
        """Whether ``node`` may still take part."""
        return not self._most or self._faults.get(node.name, 0) < self._most

    @property
    def num_aside(self) -> int:
        """How many nodes have been set aside."""
        return sum(count >= self._most for count in self._faults.values())

    @property
    def counters(self) -> dict[str, int]:
        """What a checkpoint must keep."""
        return {COUNTER + name: count for name, count in self._faults.items()}

    def judged(self, done: Round) -> tuple[Round, tuple[str, ...]]:
        """Count the faults of a round.

        Returns:
            The round, the reason of every node that is now set aside saying so; and the names of these.
        """
        if not self._most:
            return done, ()
        reports = tuple(self._counted(report) for report in done.reports)
        aside = tuple(new.node for old, new in zip(done.reports, reports, strict=True) if new is not old)
        return replace(done, reports=reports), aside

    def _counted(self, report: NodeReport) -> NodeReport:
        if report.verdict == "accepted":
            self._faults.pop(report.node, None)
        if not report.is_fault:
            return report
        faults = self._faults[report.node] = self._faults.get(report.node, 0) + 1
        if faults != self._most:
            return report
        told = f"{faults} unusable updates in a row: set aside for the rest of the run (federation.max_strikes)"
        return replace(report, reason=f"{report.reason}; {told}")
