"""What a round and a client cost: one server and two clients over loopback, as separate processes.

Prints a table and a JSON line: the median of `overhead_seconds` from round 2 on, the clients' peak resident memory, and
the seconds from a client's start until its first task was accepted. The shards have 6,000 images, as with the default
settings. Run it on an otherwise idle machine.

    python benchmarks/two_nodes.py --rounds 10
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
PORT = re.compile(rb"127\.0\.0\.1:(\d+)")


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    """A command of Fedge with its output in a pipe."""
    command = [sys.executable, "-m", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def watch(client: "subprocess.Popen[bytes]") -> tuple[float, int]:
    """Seconds to the first accepted update, and peak resident memory in bytes, of a client that runs to its end."""
    started, process = time.monotonic(), psutil.Process(client.pid)
    accepted, peak = float("nan"), 0
    assert client.stdout is not None
    for line in client.stdout:
        if b": accepted" in line and accepted != accepted:
            accepted = time.monotonic() - started
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        peak = max(peak, 1024 * int(found[1])) if found else peak
    client.wait()
    return accepted, peak


def main() -> None:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    out = Path(tempfile.mkdtemp(prefix="fedge-two-nodes-"))
    load = os.getloadavg()[0]
    server = start(
        "server", "--rounds", str(arguments.rounds), "--out", str(out), "--name", "run",
        "--host", "127.0.0.1", "--port", "0", "--set", "link.announce=false",
    )  # fmt: skip
    assert server.stdout is not None
    port = next(found[1].decode() for line in server.stdout if (found := PORT.search(line)))
    first = start("client", "--shard", "0", "--server", f"127.0.0.1:{port}", "--once")
    second = start("client", "--shard", "1", "--server", f"127.0.0.1:{port}", "--once")
    accepted, peak = watch(first)
    second.communicate()
    server.communicate()
    rows = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    overheads = [row["overhead_seconds"] for row in rows[2:]]
    figures = {
        "overhead_ms_median": 1000 * median(overheads),
        "overhead_ms_min": 1000 * min(overheads),
        "client_peak_rss_mb": peak / 1e6,
        "first_accepted_seconds": accepted,
        "load_average_before": load,
    }
    table = Table("Figure", "Value", title=f"Two nodes over loopback, {arguments.rounds} rounds")
    for name, value in figures.items():
        table.add_row(name, f"{value:.1f}")
    Console().print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
