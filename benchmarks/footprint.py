"""What a node costs its machine, beside a stock SuperNode with the same app: memory, start, CPU while idle.

One node at a time, on a shard of 6,000 images that is unpacked already, and a run that waits for a second node, so that
the first is idle; then the second joins, and both train once. Memory is the peak of the whole process tree's
proportional set size (PSS), sampled ten times a second, and the sum of resident sizes (RSS), which counts shared pages
in every process. Prints a JSON line each, and a table.

    python -m benchmarks.footprint --idle 60
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.processes import Process, started
from benchmarks.stock_flower import free_port, superlink, supernode

SAMPLE_SECONDS = 0.1
SETTLE_SECONDS = 5.0  # between being joined and the idle minute
PATIENCE_SECONDS = 300.0
RUN = ("--json", "--rounds", 1, "--clients", 2, "--set", "tensorboard.images_every=0")


class Watch:
    """The process tree of one node, from its start."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu: dict[int, float] = {}
        self.start = time.monotonic()
        self.peak_pss = self.peak_rss = 0
        self.num_processes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    @property
    def cpu_seconds(self) -> float:
        """Of all processes that were ever seen."""
        self._look()
        return sum(self._cpu.values())

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def end(self) -> None:
        """Sample no more."""
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        pss = rss = count = 0
        with suppress(psutil.Error):
            for process in (self._root, *self._root.children(recursive=True)):
                with suppress(psutil.Error):
                    memory = process.memory_full_info()
                    pss, rss, count = pss + memory.pss, rss + memory.rss, count + 1
                    self._cpu[process.pid] = sum(process.cpu_times()[:2])
        self.peak_pss, self.peak_rss = max(self.peak_pss, pss), max(self.peak_rss, rss)
        self.num_processes = max(self.num_processes, count)


def fedge(state: Path, idle_seconds: float) -> dict[str, Any]:
    """A client of ours, over TLS."""
    port = free_port()
    with ExitStack() as stack:
        place = ("--host", "127.0.0.1", "--port", port, "--set", "link.announce=false", "--out", state / "fedge")
        server = stack.enter_context(started(state, "server", *RUN, *place))
        _until(server, "round_done")  # round 0: it is up and waits for nodes

        def join(shard: int) -> int:
            command = ("client", "--shard", shard, "--server", f"127.0.0.1:{port}")
            return stack.enter_context(started(state, *command)).pid

        return _measured("fedge", server, join, "joined", idle_seconds)


def stock(state: Path, idle_seconds: float) -> dict[str, Any]:
    """A SuperNode as it comes, without TLS; it counts as joined when it has told the run what it holds."""
    with superlink(state) as address, ExitStack() as stack:
        options = ("--engine", "superlink", "--superlink", address, "--out", state / "stock")
        server = stack.enter_context(started(state, "server", *RUN, *options))
        _until(server, "round_done")
        return _measured(
            "stock SuperNode",
            server,
            lambda shard: stack.enter_context(supernode(state, address, shard)).pid,
            "waiting",
            idle_seconds,
        )


def _measured(
    name: str, server: Process, join: Callable[[int], int], joined: str, idle_seconds: float
) -> dict[str, Any]:
    watch = Watch(join(0))
    _until(server, joined, lambda event: joined != "waiting" or event["num_nodes"] == 1)
    joined_seconds, joined_cpu = watch.age, watch.cpu_seconds
    time.sleep(SETTLE_SECONDS)
    before, start = watch.cpu_seconds, time.monotonic()
    time.sleep(idle_seconds)
    idle = (watch.cpu_seconds - before) / (time.monotonic() - start)
    join(1)
    trained = _until(server, "round_done")
    watch.end()
    return {
        "node": name,
        "peak_pss_mb": watch.peak_pss / 1e6,
        "peak_rss_mb": watch.peak_rss / 1e6,
        "processes": watch.num_processes,
        "joined_seconds": joined_seconds,
        "joined_cpu_seconds": joined_cpu,
        "first_update_seconds": joined_seconds + trained["seconds"],  # as if it had been asked at once
        "idle_percent_of_a_core": 100 * idle,
    }


def _until(server: Process, kind: str, fits: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
    """The next event of that kind that fits."""
    assert server.stdout is not None
    for line in server.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == kind and fits(event):
            return event
    raise AssertionError(f"{server.args!r} ended before it said {kind}")


def main() -> None:
    """Measure both, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of doing nothing that are measured")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=("fedge", "stock"))
    asked = parser.parse_args()
    arms = {"fedge": fedge, "stock": stock}
    chosen = [arm for name, arm in arms.items() if asked.only in (None, name)] * asked.repeats
    results: list[dict[str, Any]] = []
    for arm in chosen:
        with tempfile.TemporaryDirectory(prefix="fedge-footprint-", ignore_cleanup_errors=True) as folder:
            load = os.getloadavg()[0]
            results.append(arm(Path(folder), asked.idle) | {"load_average_before": load})
            print(json.dumps(results[-1]), flush=True)
    table = Table("Figure", *(result["node"] for result in results), title="One node")
    for key in (key for key in results[0] if key != "node"):
        table.add_row(key, *(f"{result[key]:.2f}" for result in results))
    Console().print(table)


if __name__ == "__main__":
    main()
