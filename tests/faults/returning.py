"""How soon nodes are back after a kill of their server or of themselves: ``python -m tests.faults.returning``."""

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import mnist
from common.state import state_dir
from tests.faults import results
from tests.faults.federation import PATIENCE_SECONDS, Federation, kill
from tests.faults.nursery import Nursery
from tests.faults.outcome import Outcome


@contextmanager
def at_work(nursery: Nursery, folder: Path, cache: Path, num_nodes: int) -> Iterator[tuple[Federation, list[str]]]:
    """A federation of so many nodes in an endless run, and their names."""
    nodes = [f"n{number}" for number in range(num_nodes)]
    federation = Federation(nursery, folder, cache, rounds=100_000, nodes=tuple(nodes))
    try:
        for who in ("server", *nodes):
            federation.start(who)
        federation.wait_for_event("round_done", round=2)
        yield federation, nodes
    finally:
        federation.end()


def after_the_server_was_away(federation: Federation, nodes: list[str], away_seconds: float) -> list[float]:
    """Kill the server, start it again after a while; gives the seconds from that to each node's joining, in order."""
    kill(federation.pids["server"])
    federation.wait("server")
    known = len(federation.events())
    time.sleep(away_seconds)
    start = time.monotonic()
    federation.start("server")
    return sorted(joined - start for joined in _joined(federation, known, nodes).values())


def after_it_was_killed(federation: Federation, node: str) -> float:
    """Kill a node and start it again; gives the seconds from that to its joining."""
    kill(federation.pids[node])
    federation.wait(node)
    known = len(federation.events())
    start = time.monotonic()
    federation.start(node)
    return _joined(federation, known, [node])[node] - start


def _joined(federation: Federation, known: int, nodes: list[str]) -> dict[str, float]:
    """When each node joined, of what was told after the first ``known`` events; all must."""
    joined: dict[str, float] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while set(joined) < set(nodes):
        assert time.monotonic() < deadline, f"only {sorted(joined)} of {nodes} are back"
        for event in federation.events()[known:]:
            if event["event"] == "joined" and event["node"] in nodes:
                joined.setdefault(event["node"], time.monotonic())
        time.sleep(0.05)
    return joined


def main() -> int:
    """Measure; 1 if nodes took longer than 20 s after their server's start, or 10 s after their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--away", type=float, nargs="*", default=[0.0, 40.0], help="seconds that the server is away")
    asked = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    mnist.load_labels("train")
    problems: list[str] = []

    def measured(what: str, times: list[float], most: float) -> None:
        found = f"{times[0]:.1f} to {times[-1]:.1f} s"
        print(f"| {what} | {found} |", flush=True)
        results.keep_figure(what, found)
        if times[-1] > most:
            problems.append(f"{what}: {found}")

    with (
        tempfile.TemporaryDirectory() as folder,
        Nursery() as nursery,
        at_work(nursery, Path(folder) / "run", state_dir() / "cache", asked.nodes) as (federation, nodes),
    ):
        for away in asked.away:
            times = after_the_server_was_away(federation, nodes, away)
            measured(f"{len(nodes)} nodes back after a server that was killed and away for {away:g} s", times, 20.0)
        times = sorted(after_it_was_killed(federation, node) for node in nodes)
        measured(f"Each of {len(nodes)} nodes back after it was killed", times, 10.0)
    num_faults = len(asked.away) + len(nodes)
    results.keep("nodes that come back", Outcome("returning", num_faults, True, None, problems=tuple(problems)))
    return int(bool(problems))


if __name__ == "__main__":
    raise SystemExit(main())
