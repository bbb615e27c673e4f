"""A process that has imported everything and forks servers and clients: each starts in 0.1 s, not in seconds.

Forking is safe here alone: this process has one thread, has used neither gRPC nor a torch kernel, and never will.
What a child then starts (threads, channels, locks) is its own. Commands come in as JSON lines, answers go out so.
"""

import ctypes
import importlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.faults.injector import ROOT, Fault, Injector, wrap_connections, wrap_files

PR_SET_PDEATHSIG = 1  # prctl(2), Linux


class Nursery:
    """The side of whoever asks. A context manager: leaving it ends all children."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        quiet = {
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "GRPC_VERBOSITY": "NONE",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"], cwd=ROOT, env=os.environ | quiet | dict(environment or {}),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all children, and the process that forked them."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)

    def start(
        self,
        package: str,
        words: Sequence[str],
        said: Path,
        environment: Mapping[str, str],
        fault: Fault | None = None,
        record: Path | None = None,
        kill_after_seconds: float | None = None,
    ) -> int:
        """``python -m PACKAGE WORDS``; what it says is appended to ``said``. Returns its process id."""
        asked = {
            "package": package, "words": list(words), "said": str(said), "environment": dict(environment),
            "fault": asdict(fault) if fault else None, "record": str(record) if record else None,
            "kill_after_seconds": kill_after_seconds,
        }  # fmt: skip
        return int(self._ask(asked)["pid"])

    def wait(self, pid: int, seconds: float) -> int | None:
        """The exit code of a child (negative: the signal that ended it), None if it still runs after ``seconds``."""
        code = self._ask({"wait": pid, "seconds": seconds})["code"]
        return None if code is None else int(code)

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def main() -> None:
    """Answer until nobody asks any more, then end all children."""
    for module in ("__main__", "discovery", "display", "entrance", "hello", "identity", "node"):
        importlib.import_module(f"client.{module}")
    for module in ("__main__", "running"):
        importlib.import_module(f"server.{module}")
    assert threading.active_count() == 1, "a thread would be lost in every child"
    children: set[int] = set()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    try:
        for line in sys.stdin:
            print(json.dumps(_answer(json.loads(line), children)), file=answers, flush=True)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _answer(asked: dict[str, Any], children: set[int]) -> dict[str, Any]:
    if "wait" in asked:
        return {"code": _waited(asked["wait"], asked["seconds"], children)}
    pid = os.fork()
    if not pid:
        _be(asked)
    children.add(pid)
    return {"pid": pid}


def _waited(pid: int, seconds: float, children: set[int]) -> int | None:
    watched = os.pidfd_open(pid)
    try:
        # Who waits for the answer says nothing: input is the end of whoever asked.
        ended, _, _ = select.select([watched, sys.stdin], [], [], seconds)
    finally:
        os.close(watched)
    if watched not in ended:
        return None
    children.discard(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _be(asked: dict[str, Any]) -> NoReturn:
    """In the child: become that command."""
    code: object = 70
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # else it would outlive a nursery that is killed
        os.setsid()
        _redirect(asked["said"])
        os.environ |= asked["environment"]
        random.seed()
        _install(asked)
        if (seconds := asked["kill_after_seconds"]) is not None:
            threading.Thread(target=_die_after, args=(seconds,), daemon=True).start()
        _run(asked["package"], asked["words"])
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _redirect(said: str) -> None:
    said_to = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (said_to, 1), (said_to, 2)):
        os.dup2(source, target)
    sys.stdout, sys.stderr = _lines(1), _lines(2)


def _lines(descriptor: int) -> IO[str]:
    return os.fdopen(descriptor, "w", buffering=1, encoding="utf-8")


def _install(asked: dict[str, Any]) -> None:
    from tests.faults.slow_fit import stretch
    from tests.faults.streams import wrap_channels, wrap_served_streams

    stretch(float(os.environ.get("LEAST_FIT_SECONDS", 0)))

    fault, record = asked["fault"], asked["record"]
    injector = Injector(Fault(**fault) if fault else None, Path(record) if record else None)
    wrap_files(injector)
    wrap_connections(injector)
    wrap_served_streams(injector)
    wrap_channels(injector)


def _run(package: str, words: Sequence[str]) -> NoReturn:
    from client import __main__ as client
    from common.command_line import run_command
    from server import __main__ as server

    command = server if package == "server" else client
    sys.argv = [package, *words]
    run_command(command.main, command.PROG)


def _die_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
