"""A server and many nodes as real processes, with a supervisor that starts again what has died."""

import os
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.state import state_dir
from tests.e2e.processes import free_port
from tests.faults import told
from tests.faults.nursery import Nursery
from tests.faults.vital_signs import Life, Trend

PATIENCE_SECONDS = 240.0  # until the first round is done, on a machine that is busy
LOOK_SECONDS = 1.0  # between samples of memory and looks for those that died by themselves
# 100 images a shard and a small network: what is measured is the link, not the arithmetic.
SETTINGS = (
    *("model.name=mlp", "data.num_shards=600", "link.announce=false", "tensorboard.images_every=0"),
    *("federation.fraction=0.5", "federation.over_selection=0.5", "federation.replace_lost=false"),
    *("federation.clients=15", "federation.min_nodes=10", "federation.round_deadline_seconds=30"),
)


class Farm:
    """Processes of a nursery, in a folder of their own.

    Attributes:
        nodes: their names.
        run: the run directory.
    """

    def __init__(self, nursery: Nursery, folder: Path, num_nodes: int) -> None:
        self.nodes = [f"n{number}" for number in range(num_nodes)]
        self.run = folder / "runs" / "soak"
        self._nursery, self._folder, self._port = nursery, folder, free_port()
        (folder / "state").mkdir(mode=0o700, parents=True)
        (folder / "state" / "cache").symlink_to(state_dir() / "cache")
        self._pids: dict[str, int] = {}
        self._lives: dict[str, list[Life]] = {}
        self._looked_at = 0.0

    def start_all(self) -> None:
        """The server and all nodes."""
        for who in ("server", *self.nodes):
            self._start(who)

    def kill(self, who: str) -> None:
        """End one process without a word, and start it again."""
        os.kill(self._pids[who], signal.SIGKILL)
        self._nursery.wait(self._pids[who], 60)
        self._start(who)

    def tend(self) -> None:
        """Look at all processes, if it is time to; one that ended by itself is started again."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        for who, pid in self._pids.items():
            self._lives[who][-1].look()
            if self._nursery.wait(pid, 0) is not None:
                self._start(who)

    def wait_for_round(self, number: int) -> None:
        """Until it is saved.

        Raises:
            TimeoutError: it takes too long.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.rounds_done() < number:
            if time.monotonic() > deadline:
                server, node = (told.said(self._folder, who) for who in ("server", "n0"))
                raise TimeoutError(f"no round {number}: {server[-2000:]}{node[-500:]}")
            self.tend()
            time.sleep(0.1)

    def rounds_done(self) -> int:
        """How many rounds are saved."""
        path = self.run / "metrics.jsonl"
        return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0

    def stop(self) -> None:
        """End the server after its round, and then the nodes."""
        os.kill(self._pids["server"], signal.SIGTERM)
        self._nursery.wait(self._pids["server"], 60)
        for who, pid in self._pids.items():
            if who != "server":
                os.kill(pid, signal.SIGKILL)
                self._nursery.wait(pid, 60)

    def events(self) -> list[dict[str, Any]]:
        """All that the server told."""
        return told.events(self._folder)

    def tasks_of_nodes(self) -> set[tuple[int, str]]:
        """(round, node) of every fit that a node told to be done or dropped."""
        done = re.compile(r"round (\d+): (?:trained|dropped)")
        return {(int(number), node) for node in self.nodes for number in done.findall(told.said(self._folder, node))}

    def trend(self, names: Iterable[str]) -> Trend:
        """Of the life among theirs that lasted longest."""
        return max((life for who in names for life in self._lives[who]), key=lambda life: life.seconds).trend()

    def _start(self, who: str) -> None:
        package, words = ("server", self._server_words()) if who == "server" else ("client", self._client_words(who))
        state = {"FEDGE_STATE_DIR": str(self._folder / "state")}
        self._pids[who] = self._nursery.start(package, words, self._folder / f"{who}.txt", state)
        self._lives.setdefault(who, []).append(Life(self._pids[who]))

    def _server_words(self) -> list[str]:
        return [
            *("--json", "--host", "127.0.0.1", "--port", str(self._port), "--rounds", "1000000"),
            *("--out", str(self.run.parent), "--name", self.run.name, "--resume"),
            *(word for setting in SETTINGS for word in ("--set", setting)),
        ]

    def _client_words(self, name: str) -> list[str]:
        return ["--shard", name[1:], "--name", name, "--server", f"127.0.0.1:{self._port}"]
