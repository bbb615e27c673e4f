"""What a round costs beside training: LeNet5 through server, link and client processes, with every check and TLS on.

Compares, on one machine and by the rules of `benchmarks.turns`:

- fedge: rounds of `benchmarks.light_server` with light nodes (`benchmarks.light_nodes`) that do everything but train;
- fedge, default threads: the same with as many threads as torch chooses;
- echo: bare gRPC streams that carry the same bytes, the limit (`benchmarks.echo`);
- with --superlink: Flower's own SuperLink and two SuperNodes, and Fedge's link with two clients, both with the same two
  apps on 10 images a node (one step of SGD, so nearly no training), through `python -m server` on both.

Prints a table and a JSON line. The nodes of an arm share a few processes, in all arms alike.

    python -m benchmarks.round_overhead --nodes 2 10 100 1000 --superlink
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.processes import finish, first_line, started
from benchmarks.stock_flower import rounds_on_superlink, rounds_on_the_link
from benchmarks.turns import Arm, mark, take_turns

MAX_PROCESSES = 4  # of light nodes; more cost memory and take cores from the server
NUM_WARM = 2  # rounds that are not counted: first connections, first pages
NUM_EXCHANGES = 1_000  # in a turn, over all nodes, where that makes 10 to 200 rounds
MANY = 500  # nodes from which on one arm is enough: they take minutes to join
# Seen on a quiet machine like this one (2 cores): see ``benchmarks.turns``.
QUIET_ECHO = {2: 0.0011, 10: 0.0046, 100: 0.051}
QUIET_SUPERLINK = 6.5


@dataclass
class Rounds:
    """Rounds of so many nodes through the link; what it learns of them beside their seconds is kept."""

    num_nodes: int
    num_rounds: int
    state: Path
    threads: int = 1
    rows: list[dict[str, float]] = field(default_factory=list)
    peak_mb: float = 0.0

    def __call__(self) -> list[float]:
        """One turn."""
        with ExitStack() as stack:
            size = ("--nodes", self.num_nodes, "--rounds", self.num_rounds + NUM_WARM)
            server = stack.enter_context(started(self.state, "benchmarks.light_server", *size, threads=self.threads))
            port = first_line(server)
            for first, count in _shares(self.num_nodes):
                part = ("--first", first, "--count", count, "--port", port)
                stack.enter_context(started(self.state, "benchmarks.light_nodes", *part, threads=self.threads))
            *rows, peak = [json.loads(line) for line in finish(server)]
        assert [row["accepted"] for row in rows] == [self.num_nodes] * len(rows), "an update was not accepted"
        self.rows += rows[NUM_WARM:]
        self.peak_mb = max(self.peak_mb, peak["peak_mb"])
        return [row["seconds"] for row in rows[NUM_WARM:]]

    def figures(self) -> dict[str, Any]:
        """Medians of the parts of a round, in seconds, and the server's peak memory in MB."""
        parts = sorted({key for row in self.rows for key in row} - {"accepted", "bytes_down", "seconds"})
        phases = {key: median(row[key] for row in self.rows if key in row) for key in parts}
        return {"phases": phases, "server_peak_mb": self.peak_mb}


def echo(num_nodes: int, num_rounds: int, state: Path) -> list[float]:
    """A turn of the bare streams."""
    known = ("--authority", state / "echo-ca.pem")
    with ExitStack() as stack:
        arguments = ("serve", "--nodes", num_nodes, "--rounds", num_rounds + NUM_WARM, *known)
        server = stack.enter_context(started(state, "benchmarks.echo", *arguments))
        port = first_line(server)
        for _, count in _shares(num_nodes):
            stack.enter_context(started(state, "benchmarks.echo", "answer", "--count", count, "--port", port, *known))
        rows = [json.loads(line) for line in finish(server)]
    return [row["seconds"] for row in rows[NUM_WARM:]]


def beside_the_limit(num_nodes: int, num_rounds: int, state: Path) -> list[dict[str, Any]]:
    """The arms of so many nodes."""
    ours = {"fedge": Rounds(num_nodes, num_rounds, state)}
    arms = [Arm("echo", lambda: echo(num_nodes, num_rounds, state), QUIET_ECHO.get(num_nodes, 0.0))]
    if num_nodes < MANY:
        ours["fedge, default threads"] = Rounds(num_nodes, num_rounds, state, threads=0)
    arms += [Arm(name, run) for name, run in ours.items()]
    return [
        each.figures() | {"nodes": num_nodes} | (ours[each.arm.name].figures() if each.arm.name in ours else {})
        for each in take_turns(arms)
    ]


def beside_the_superlink(num_rounds: int, state: Path) -> list[dict[str, Any]]:
    """Two nodes with the same two apps."""
    arms = [
        Arm("superlink, same apps", lambda: rounds_on_superlink(state, num_rounds), QUIET_SUPERLINK),
        Arm("link, same apps", lambda: rounds_on_the_link(state, num_rounds)),
    ]
    return [each.figures() | {"nodes": 2} for each in take_turns(arms)]


def main() -> None:
    """Run all arms, print, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=[2, 10, 100, 1000])
    parser.add_argument("--rounds", type=int, help="in a turn; by default 10 to 200, the fewer the more nodes")
    parser.add_argument("--superlink", action="store_true", help="beside Flower's SuperLink too (a few minutes)")
    asked = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fedge-rounds-", ignore_cleanup_errors=True) as folder:
        for num_nodes in asked.nodes:
            num_rounds = asked.rounds or max(10, min(200, NUM_EXCHANGES // num_nodes))
            results += beside_the_limit(num_nodes, num_rounds, Path(folder))
        if asked.superlink:
            results += beside_the_superlink(asked.rounds or 8, Path(folder))
    Console(width=120).print(_table(results))
    print(json.dumps({"benchmark": "round_overhead", "rows": results}))


def _table(results: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Seconds of a round without training")
    for heading in ("Arm", "Nodes", "Median", "Min", "p99", "Turns", "Server's peak", "Load", ""):
        table.add_column(heading)
    for result in results:
        peak = f"{result['server_peak_mb']:.0f} MB" if "server_peak_mb" in result else ""
        load = f"{result['load_before']:.1f}–{result['load_after']:.1f}"
        table.add_row(result["arm"], str(result["nodes"]), *(f"{result[key]:.4f}" for key in ("median", "min", "p99")),
                      " ".join(f"{each:.4f}" for each in result["turns"]), peak, load, mark(result))  # fmt: skip
    return table


def _shares(num_nodes: int) -> list[tuple[int, int]]:
    """(first node, number of nodes) of every process."""
    processes = min(num_nodes, MAX_PROCESSES if num_nodes > 10 else 2)
    bounds = [place * num_nodes // processes for place in range(processes + 1)]
    return [(first, end - first) for first, end in pairwise(bounds)]


if __name__ == "__main__":
    main()
