"""What a round costs beside training: LeNet5 through server, link and client processes, with every check and TLS on.

Compares, on one machine and in turns (each arm twice, so that its own repeat shows how far to trust it):

- fedge: rounds of `benchmarks.light_server` with light nodes (`benchmarks.light_nodes`) that do everything but train;
- echo: bare gRPC streams that carry the same bytes, the limit (`benchmarks.echo`);
- with --superlink: Flower's own SuperLink and two SuperNodes, and Fedge's link with two clients, both with the same two
  apps on 10 images a node (one step of SGD, so nearly no training), through `python -m server` on both.

Prints a table and a JSON line. The nodes of an arm share a few processes, in all arms alike.

    python -m benchmarks.round_overhead --nodes 2 10 100 --rounds 40 --superlink
"""

import argparse
import json
import os
import tempfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.processes import finish, first_line, started
from benchmarks.stock_flower import rounds_on_superlink, rounds_on_the_link

MAX_PROCESSES = 4  # of light nodes; more cost memory and take cores from the server
NUM_WARM = 2  # rounds that are not counted: first connections, first pages


def fedge(num_nodes: int, num_rounds: int, state: Path) -> list[dict[str, float]]:
    """Rounds through the link; the last object is the server's peak memory."""
    with ExitStack() as stack:
        server = stack.enter_context(
            started(state, "benchmarks.light_server", "--nodes", num_nodes, "--rounds", num_rounds + NUM_WARM)
        )
        port = first_line(server)
        for first, count in _shares(num_nodes):
            stack.enter_context(
                started(state, "benchmarks.light_nodes", "--first", first, "--count", count, "--port", port)
            )
        *rows, peak = [json.loads(line) for line in finish(server)]
    assert [row["accepted"] for row in rows] == [num_nodes] * len(rows), "an update was not accepted"
    return [*rows[NUM_WARM:], peak]


def echo(num_nodes: int, num_rounds: int, state: Path) -> list[dict[str, float]]:
    """Rounds of the bare streams."""
    known = ("--authority", state / "echo-ca.pem")
    with ExitStack() as stack:
        arguments = ("serve", "--nodes", num_nodes, "--rounds", num_rounds + NUM_WARM, *known)
        server = stack.enter_context(started(state, "benchmarks.echo", *arguments))
        port = first_line(server)
        for _, count in _shares(num_nodes):
            stack.enter_context(started(state, "benchmarks.echo", "answer", "--count", count, "--port", port, *known))
        rows = [json.loads(line) for line in finish(server)]
    return rows[NUM_WARM:]


def main() -> None:
    """Run all arms, print, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 10, 100])
    parser.add_argument("--rounds", type=int, default=40, help="in each of two repeats")
    parser.add_argument("--superlink", action="store_true", help="beside Flower's SuperLink too (a few minutes)")
    asked = parser.parse_args()
    table = Table("Arm", "Nodes", "Median", "Min", "p99", "Repeats", title="Seconds of a round without training")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fedge-rounds-") as folder:
        state = Path(folder)
        for num_nodes in asked.nodes:
            repeats: dict[str, list[list[dict[str, float]]]] = {"echo": [], "fedge": []}
            load = os.getloadavg()[0]
            for _ in range(2):
                repeats["echo"].append(echo(num_nodes, asked.rounds, state))
                repeats["fedge"].append(fedge(num_nodes, asked.rounds, state))
            results += [_result(arm, num_nodes, load, found) for arm, found in repeats.items()]
        if asked.superlink:
            load = os.getloadavg()[0]
            for name, arm in (("superlink", rounds_on_superlink), ("link, same apps", rounds_on_the_link)):
                results.append(_result(name, 2, load, [[{"seconds": seconds} for seconds in arm(state, 8)]]))
    for result in results:
        table.add_row(result["arm"], str(result["nodes"]), *(f"{result[key]:.4f}" for key in ("median", "min", "p99")),
                      " ".join(f"{each:.4f}" for each in result["repeats"]))  # fmt: skip
    Console().print(table)
    print(json.dumps(results))


def _result(arm: str, num_nodes: int, load: float, repeats: list[list[dict[str, float]]]) -> dict[str, Any]:
    rounds = [row for rows in repeats for row in rows if "seconds" in row]
    seconds = sorted(row["seconds"] for row in rounds)
    phases = sorted({key for row in rounds for key in row} - {"accepted", "bytes_down", "seconds"})
    return {
        "arm": arm,
        "nodes": num_nodes,
        "median": median(seconds),
        "min": seconds[0],
        "p99": seconds[min(len(seconds) - 1, round(0.99 * len(seconds)))],
        "repeats": [median(row["seconds"] for row in rows if "seconds" in row) for rows in repeats],
        "phases": {key: median(row[key] for row in rounds if key in row) for key in phases},
        "server_peak_mb": max((row["peak_mb"] for rows in repeats for row in rows if "peak_mb" in row), default=0.0),
        "load_average_before": load,
    }


def _shares(num_nodes: int) -> list[tuple[int, int]]:
    """(first node, number of nodes) of every process."""
    processes = min(num_nodes, MAX_PROCESSES if num_nodes > 10 else 2)
    bounds = [place * num_nodes // processes for place in range(processes + 1)]
    return [(first, end - first) for first, end in pairwise(bounds)]


if __name__ == "__main__":
    main()
