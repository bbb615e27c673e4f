"""The main job on one machine: a server and four clients as separate processes, real MNIST, real sockets.

Ends with the table of rounds, the best accuracy and where the model is. Exit code: the server's.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

NUM_CLIENTS = 4
ROOT = Path(__file__).resolve().parent.parent
LEAVE_SECONDS = 10


def main() -> int:
    """Start everything, wait for the server, stop what is left."""
    arguments = _parse()
    logs = Path(tempfile.mkdtemp(prefix="fedge-demo-"))
    port = _free_port()
    print(
        f"One server and {NUM_CLIENTS} clients, each a process of its own; what the clients say is in {logs}",
        flush=True,
    )
    overrides = [f"--set={text}" for text in (f"data.num_shards={NUM_CLIENTS}", "link.announce=false", *arguments.set)]
    server = _start(
        "server", "--rounds", str(arguments.rounds), "--clients", str(NUM_CLIENTS), "--out", arguments.out,
        "--host", "127.0.0.1", "--port", str(port), *overrides,
    )  # fmt: skip
    clients = [
        _start("client", "--shard", str(shard), "--server", f"127.0.0.1:{port}", "--once", log=logs / f"{shard}.log")
        for shard in range(NUM_CLIENTS)
    ]
    # Ctrl-C reaches every process of the terminal; the server says how to go on, so its exit code is ours.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: server.send_signal(signal.SIGTERM))
    code = server.wait()
    for client in clients:
        try:
            client.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            client.terminate()
            client.wait()
    return code


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of training (default 10)")
    parser.add_argument("--out", default="runs", help="folder of run directories (default runs)")
    parser.add_argument("--set", action="append", default=[], help="override a setting, as of the server")
    return parser.parse_args()


def _start(package: str, *arguments: str, log: Path | None = None) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", package, *arguments]
    if log is None:
        return subprocess.Popen(command, env=environment)
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
