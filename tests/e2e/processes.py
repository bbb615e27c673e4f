"""Servers and clients as real processes: start them, follow what they say as they say it, leave none behind."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 360.0  # for a machine that is busy with other tests; nothing is measured by it
# 300 images a shard, 10 steps an epoch: a round takes as long as starting to speak.
TINY = ("data.num_shards=200", "training.local_epochs=3", "link.announce=false")
LONG = ("training.local_epochs=100000",)  # hours: whatever happens, happens while nodes train

Found = TypeVar("Found")


class Process:
    """A started command in a session of its own, and its lines so far."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.command = " ".join(command)
        self.out: list[str] = []
        self.err: list[str] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | (environment or {}), start_new_session=True, encoding="utf-8",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        streams = ((self._process.stdout, self.out), (self._process.stderr, self.err))
        self._readers = [threading.Thread(target=self._read, args=each, daemon=True) for each in streams]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it alone."""
        self._process.send_signal(number)

    def exit_code(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; all its lines are in ``out`` and ``err`` then."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:g} s: {self}") from None
        for reader in self._readers:
            reader.join(PATIENCE_SECONDS)
        return self._process.returncode

    def wait_line(self, pattern: str, seconds: float = PATIENCE_SECONDS, since: int = 0) -> str:
        """The first line on standard output from line ``since`` on in which ``pattern`` is found."""
        return self._wait(
            lambda: next((line for line in self.out[since:] if re.search(pattern, line)), None), pattern, seconds
        )

    def kill(self) -> None:
        """End it and all its children, whatever state they are in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_SECONDS)
        for reader in self._readers:
            reader.join(PATIENCE_SECONDS)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def __str__(self) -> str:
        """For the message of a failed test."""
        return "\n  ".join([self.command, *self.out[-60:], "standard error:", *self.err[-40:]])

    def _read(self, pipe: IO[str], lines: list[str]) -> None:
        for line in pipe:
            with self._news:
                lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _wait(self, find: Callable[[], Found | None], wanted: object, seconds: float) -> Found:
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                is_over = not self._readers[0].is_alive()
                if (found := find()) is not None:
                    return found
                left = deadline - time.monotonic()
                assert not is_over, f"no {wanted} before its end: {self}"
                assert left > 0, f"no {wanted} in {seconds:g} s: {self}"
                self._news.wait(min(left, 0.5))


class Server(Process):
    """A server that tells its events in JSON."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._events: list[dict[str, Any]] = []
        super().__init__(command, environment)

    @property
    def events(self) -> list[dict[str, Any]]:
        """All so far; every line must be one."""
        self._events += [json.loads(line) for line in self.out[len(self._events) :]]
        return self._events

    def wait_event(
        self, kind: str, seconds: float = PATIENCE_SECONDS, since: int = 0, **values: object
    ) -> dict[str, Any]:
        """The first event of that kind and with these values, from event ``since`` on."""
        wanted = {"event": kind} | values
        return self._wait(
            lambda: next((event for event in self.events[since:] if wanted.items() <= event.items()), None),
            wanted, seconds,
        )  # fmt: skip

    def after(self, event: dict[str, Any]) -> int:
        """How many events there were when ``event`` had come: ``since`` for what follows it."""
        return 1 + next(number for number, known in enumerate(self.events) if known is event)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.wait_event("started")["address"].rpartition(":")[2])

    @property
    def run_dir(self) -> Path:
        """The directory of its run."""
        return Path(self.wait_event("started")["run_dir"])


Started = TypeVar("Started", bound=Process)


class Federation:
    """All processes of one test."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "runs"
        self._started: list[Process] = []

    def server(self, *arguments: str, environment: dict[str, str] | None = None) -> Server:
        """Start ``python -m server`` with JSON lines; see ``serve`` for one that serves a tiny run."""
        command = [sys.executable, "-m", "server", "--json", "--out", str(self.out), *arguments]
        return self.keep(Server(command, environment))

    def serve(
        self,
        *arguments: str,
        settings: Sequence[str] = (),
        rounds: int = 4,
        clients: int = 2,
        environment: dict[str, str] | None = None,
    ) -> Server:
        """Start a server on a free port of loopback and wait until it listens."""
        server = self.server(
            *("--host", "127.0.0.1", "--port", str(free_port()), "--rounds", str(rounds), "--clients", str(clients)),
            *as_flags(TINY), *as_flags(settings), *arguments, environment=environment,
        )  # fmt: skip
        server.wait_event("started")
        return server

    def resume(self, *arguments: str) -> Server:
        """Start a server that resumes the newest run, or the one of ``arguments``, and wait until it listens."""
        server = self.server("--resume", *arguments)
        server.wait_event("started")
        return server

    def client(self, at: Server | str, *arguments: str, environment: dict[str, str] | None = None) -> Process:
        """Start a client of a server, or of HOST:PORT."""
        address = at if isinstance(at, str) else f"127.0.0.1:{at.port}"
        command = [sys.executable, "-m", "client", "--server", address, *arguments]
        return self.keep(Process(command, environment))

    def clients(self, server: Server, *arguments: str) -> tuple[Process, Process]:
        """Start nodes a and b on shards 0 and 1."""
        a, b = (self.client(server, "--shard", str(i), "--name", name, *arguments) for i, name in enumerate("ab"))
        return a, b

    def keep(self, process: Started) -> Started:
        """End ``process`` with the test."""
        self._started.append(process)
        return process

    def end(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            process.kill()


def hold_round(server: Server, b: Process, after: int) -> None:
    """Freeze node b when it has delivered in round ``after``, and wait for the next: it cannot end now."""
    began = server.wait_event("round_started", round=after)
    server.wait_event("delivered", since=server.after(began), node="b")
    b.send(signal.SIGSTOP)
    server.wait_event("round_started", round=after + 1)


def as_flags(settings: Sequence[str]) -> list[str]:
    """``--set`` before each."""
    return [word for setting in settings for word in ("--set", setting)]


def free_port() -> int:
    """A port of loopback, free as the one after it is; not of those that the system gives to connections."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000, 2)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
