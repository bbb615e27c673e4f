"""A server and two nodes that a nursery starts, and starts again when a fault has ended them."""

import shutil
import time
from pathlib import Path
from typing import Any

from tests.e2e.processes import free_port
from tests.faults import told
from tests.faults.injector import Fault
from tests.faults.nursery import Nursery

ROUNDS = 3
PATIENCE_SECONDS = 120.0  # for a machine that is busy; nothing is measured by it
# 100 images a shard and a small network: a round is over in a moment, and everything else is as always.
SETTINGS = (
    *("model.name=mlp", "data.num_shards=600", "link.announce=false"),
    *("link.beat_seconds=0.1", "link.silence_seconds=5", "tensorboard.images_every=0"),
)
NODES = ("a", "b")


class Federation:
    """One run in a folder of its own; its state folder shares the unpacked MNIST of ``cache``."""

    def __init__(
        self,
        nursery: Nursery,
        folder: Path,
        cache: Path,
        rounds: int = ROUNDS,
        nodes: tuple[str, ...] = NODES,
        settings: tuple[str, ...] = (),
        port: int = 0,
    ) -> None:
        """``settings`` come on top of the usual ones; ``port`` is the server's, 0 = any that is free."""
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.state = folder, folder / "state"
        self.state.mkdir(mode=0o700, parents=True)
        (self.state / "cache").symlink_to(cache)
        self.least_fit_seconds = 0.0  # of what is started from now on
        self.run = folder / "runs" / "run"
        self.pids: dict[str, int] = {}
        self._nursery = nursery
        self._rounds, self._nodes, self._settings = rounds, nodes, (*SETTINGS, *settings)
        self.port = port or free_port()
        self.ports = dict.fromkeys(nodes, self.port)  # where each node looks for the server

    def start(
        self, who: str, fault: Fault | None = None, record: Path | None = None, kill_after_seconds: float | None = None
    ) -> None:
        """Start ``server`` or a node, with the same command every time."""
        package = "server" if who == "server" else "client"
        words = self._server_words() if who == "server" else self._client_words(who)
        environment = {"FEDGE_STATE_DIR": str(self.state), "LEAST_FIT_SECONDS": str(self.least_fit_seconds)}
        self.pids[who] = self._nursery.start(
            package, words, self.folder / f"{who}.txt", environment, fault, record, kill_after_seconds
        )

    def wait(self, who: str, seconds: float = PATIENCE_SECONDS) -> int | None:
        """The exit code of one, None while it runs."""
        code = self._nursery.wait(self.pids[who], seconds)
        if code is not None:
            del self.pids[who]
        return code

    def end(self) -> None:
        """Kill what still runs."""
        for who, pid in list(self.pids.items()):
            kill(pid)
            self.wait(who)

    def said(self, who: str) -> str:
        """All that it wrote to its terminal, over all its lives."""
        return told.said(self.folder, who)

    def events(self) -> list[dict[str, Any]]:
        """What the server told as JSON."""
        return told.events(self.folder)

    def wait_for_event(self, kind: str, **values: object) -> None:
        """Until the server has told it."""
        wanted = {"event": kind} | values
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(wanted.items() <= event.items() for event in self.events()):
            assert time.monotonic() < deadline, f"no {wanted} in {self.said('server')}"
            time.sleep(0.02)

    def _server_words(self) -> list[str]:
        return [
            *("--json", "--host", "127.0.0.1", "--port", str(self.port), "--rounds", str(self._rounds)),
            *("--out", str(self.run.parent), "--name", self.run.name, "--resume"),
            *("--clients", str(len(self._nodes)), "--set", f"federation.min_nodes={len(self._nodes)}"),
            *(word for setting in self._settings for word in ("--set", setting)),
        ]

    def _client_words(self, name: str) -> list[str]:
        shard = str(self._nodes.index(name))
        server, enrol_port = f"127.0.0.1:{self.ports[name]}", f"link.enrol_port={self.port + 1}"
        return ["--once", "--shard", shard, "--name", name, "--server", server, "--set", enrol_port]


def kill(pid: int) -> None:
    """End a child of the nursery, which reaps it."""
    import os
    import signal

    os.kill(pid, signal.SIGKILL)
