"""Flower's own SuperLink and SuperNodes as they come, for Fedge's two apps; and Fedge's link for the same run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.processes import environment, finish, started

ALMOST_NO_DATA = ("--set", "data.num_shards=6000", "--set", "tensorboard.images_every=0")  # 10 images, one step
HEALTHY_SECONDS = 60


def rounds_on_superlink(state: Path, num_rounds: int) -> list[float]:
    """Seconds of every round but the first, two SuperNodes."""
    with superlink(state) as address, ExitStack() as stack:
        for shard in (0, 1):
            stack.enter_context(supernode(state, address, shard))
        return _run(state, num_rounds, "--engine", "superlink", "--superlink", address)


def rounds_on_the_link(state: Path, num_rounds: int) -> list[float]:
    """The same with Fedge's server and two clients."""
    port = free_port()
    with ExitStack() as stack:
        for shard in (0, 1):
            stack.enter_context(started(state, "client", "--shard", shard, "--server", f"127.0.0.1:{port}"))
        return _run(state, num_rounds, "--host", "127.0.0.1", "--port", port, "--set", "link.announce=false")


@contextmanager
def superlink(state: Path) -> Iterator[str]:
    """A SuperLink without TLS, healthy; its address."""
    port = free_port()
    options = ("--insecure", "--port", str(port), "--disable-runtime-dependency-installation")
    with _flower(state, "superlink", *options):
        deadline = time.monotonic() + HEALTHY_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                assert time.monotonic() < deadline, "the SuperLink does not answer"
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"


@contextmanager
def supernode(state: Path, address: str, shard: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A stock SuperNode on a shard."""
    options = ("--insecure", "--superlink", address, "--port", str(free_port()))
    with _flower(state, f"supernode-{shard}", *options, "--node-config", f"partition-id={shard}") as process:
        yield process


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _flower(state: Path, name: str, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    home, scripts = state / name, Path(sys.executable).parent
    home.mkdir(exist_ok=True)
    own = environment(state, FLWR_HOME=str(home), PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}")
    del own["PYTHONPATH"]  # as its users have it: the code comes with the run
    command = [str(scripts / f"flower-{name.partition('-')[0]}"), *options]
    with (state / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=home, env=own, stdout=log, stderr=log)
        try:
            yield process
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            psutil.wait_procs([psutil.Process(process.pid), *children], timeout=10)
            for child in children:
                if child.is_running():
                    child.kill()
            process.kill()
            process.wait()


def _run(state: Path, num_rounds: int, *arguments: object) -> list[float]:
    with TemporaryDirectory(dir=state) as out:
        common = ("--quiet", "--rounds", num_rounds, "--clients", 2, "--out", out, "--name", "run")
        with started(state, "server", *common, *ALMOST_NO_DATA, *arguments) as server:
            finish(server)
        rows = [json.loads(line) for line in (Path(out) / "run" / "metrics.jsonl").read_text().splitlines()]
    return [row["seconds"] for row in rows[2:]]
