"""Rule: the same run goes through a stock SuperLink with stock SuperNodes, and its end is our exit code.

One SuperLink and two SuperNodes, real processes, serve all tests of this file.
"""

import os
import re
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.processes import PATIENCE_SECONDS, TINY, Federation, Process, Server, as_flags, free_port
from tests.e2e.runs import json_lines, learned, points_of, rounds_of

pytestmark = pytest.mark.xdist_group("superlink")


class SuperLink:
    """A SuperLink and two SuperNodes on shards 0 and 1, each with a Flower home and a working folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[Process] = []
        self.address = f"127.0.0.1:{free_port()}"

    def start(self) -> None:
        """Start them all."""
        port = self.address.rpartition(":")[2]
        install_nothing = "--disable-runtime-dependency-installation"
        self._start("link", "flower-superlink", "--insecure", "--port", port, install_nothing)
        self._wait_until_healthy()
        for shard in (0, 1):
            self._start(
                f"node-{shard}", "flower-supernode", "--insecure", "--superlink", self.address,
                "--port", str(free_port()), "--node-config", f"partition-id={shard}",
            )  # fmt: skip

    def _start(self, name: str, command: str, *arguments: str) -> None:
        home = self.folder / name
        home.mkdir(parents=True)
        scripts = Path(sys.executable).parent
        environment = {
            "FLWR_HOME": str(home),
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",  # they start each other by name
        }
        self._processes.append(Process(["env", "--chdir", str(home), str(scripts / command), *arguments], environment))

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.address}/health", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < deadline, f"the SuperLink does not answer: {self._processes[0]}"
                time.sleep(0.1)

    def end(self) -> None:
        """Stop the nodes, then the SuperLink, then whatever they started that is still there."""
        started = [psutil.Process(process.pid) for process in self._processes]
        children = [child for process in started for child in process.children(recursive=True)]
        for process in reversed(self._processes):
            process.send(signal.SIGTERM)
        psutil.wait_procs([*started, *children], timeout=5)
        for child in children:
            if child.is_running():
                child.kill()
        for process in self._processes:
            process.kill()


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory, simulated: Path) -> Iterator[SuperLink]:
    del simulated  # by then the data is unpacked: a Flower bundle holds none
    os.environ.pop("FLWR_HOME", None)
    link = SuperLink(tmp_path_factory.mktemp("superlink"))
    try:
        link.start()
        yield link
    finally:
        link.end()


def submit(federation: Federation, superlink: SuperLink, *arguments: str) -> Server:
    """Start a run of two tiny rounds on the SuperLink."""
    engine = ("--engine", "superlink", "--superlink", superlink.address)
    return federation.server(*engine, "--rounds", "2", *as_flags(TINY), *arguments)


def events_of(server: Server) -> list[str]:
    return [event["event"] for event in server.events if event["event"] != "waiting"]


def test_a_run_that_fails_for_want_of_nodes_is_resumed_and_learns_what_the_simulation_does(
    superlink: SuperLink, federation: Federation, simulated: Path
) -> None:
    run = federation.out / "far"
    server = submit(federation, superlink, "--name", "far", "--clients", "3", "--set", "federation.wait_seconds=1")
    assert server.exit_code() == 1, server
    assert events_of(server) == ["submitted", "started", "round_done", "failed"]
    assert re.search(r"Error: only [012] of 3 nodes came within 1 s", server.err[0]), server
    assert rounds_of(run) == [0]

    resumed = submit(federation, superlink, "--resume", "--clients", "2", "--set", "federation.wait_seconds=600")
    assert resumed.exit_code() == 0, resumed
    assert events_of(resumed) == [
        *("submitted", "started", "round_started", "round_done", "round_started", "round_done", "finished")
    ]
    assert learned(run, 2) == learned(simulated, 2)
    assert points_of(run)["test/accuracy"] == [0, 1, 2]
    assert {line["node"] for line in json_lines(run / "ledger.jsonl")} == {"shard-0", "shard-1"}
    files = {"settings.yaml", "metrics.jsonl", "ledger.jsonl", "best.pt", "best.json", "last.pt", "run.log"}
    assert files <= {file.name for file in run.iterdir()}


def test_a_name_that_is_taken_there_is_bad_usage_here(superlink: SuperLink, federation: Federation) -> None:
    (federation.out / "taken").mkdir(parents=True)
    (federation.out / "taken" / "somebody's").touch()  # an empty folder is nobody's
    server = submit(federation, superlink, "--name", "taken")
    assert server.exit_code() == 2, server
    assert server.err == [
        f"Error: run directory {federation.out / 'taken'} exists and is never overwritten;"
        " choose another --name, or --resume it"
    ]


def test_ctrl_c_stops_the_run_there(superlink: SuperLink, federation: Federation) -> None:
    server = submit(federation, superlink, "--name", "stopped", "--clients", "3")
    server.wait_event("waiting")
    server.send(signal.SIGINT)
    assert server.exit_code() == 130, server
    assert rounds_of(federation.out / "stopped") == [0]
    assert re.search(r"Interrupted: run \d+ on the SuperLink at .* is stopped; its finished rounds", server.err[0])


def test_a_superlink_that_is_not_there_is_one_line(federation: Federation) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    server = federation.server("--engine", "superlink", "--superlink", nowhere)
    assert server.exit_code() == 1, server
    assert len(server.err) == 1
    assert server.err[0].startswith(f"Error: the SuperLink at {nowhere} did not do `flwr run`: ")
