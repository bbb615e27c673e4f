"""Submits a run to a Flower SuperLink, passes on what its ServerApp says, and waits for its end.

Flower has no public Python API for that; its command ``flwr`` is what people use, and what is used here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import Interrupted, RunFailed, UsageError
from server.engines.telling import from_details, unmarked
from server.stopping import StopRequest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("pyproject.toml", "common", "client", "server", "configs")
CONNECTION = "fedge-superlink"  # in Flower's config; must not be the name of a folder beside it
LOOK_SECONDS = 0.2  # how often a wait sees whether it should stop
PAUSE_SECONDS = 2.0
MAX_FAILURES = 5  # status calls in a row that a SuperLink may leave unanswered


def submit(
    address: str,
    certificates: str,
    run_config: Mapping[str, str | bool],
    stop: StopRequest,
    submitted: Callable[[str], None],
    tell: Callable[[str], None],
) -> None:
    """Run Fedge on the SuperLink at ``address`` and return when the run is done.

    Args:
        address: HOST:PORT.
        certificates: path of a PEM file that vouches for it; empty = no TLS.
        run_config: for ``server.app.main``.
        stop: when requested, the run is stopped; it keeps its finished rounds.
        submitted: told the run's number on the SuperLink.
        tell: told each line of the ServerApp's own.

    Raises:
        UsageError: the certificates cannot be read, or the run says so of what it was asked for.
        RunFailed: the SuperLink cannot be reached, does not take the run, or the run failed.
        Interrupted: it was stopped, from here or elsewhere.
    """
    with tempfile.TemporaryDirectory(prefix="fedge-superlink-") as name:
        link = SuperLink(address, certificates, Path(name))
        app, config = _staged(Path(name)), Path(name) / "run.toml"
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in run_config.items()]
        config.write_text("".join(lines), encoding="utf-8")
        run = str(link.ask("run", str(app), CONNECTION, "--run-config", str(config))["run-id"])
        submitted(run)
        try:
            _wait(link, run, stop, tell)
        except Interrupted:
            if stop.requested:
                link.ask("stop", run, CONNECTION)
            raise


class SuperLink:
    """The ``flwr`` command, pointed at one SuperLink by a Flower home of its own."""

    def __init__(self, address: str, certificates: str, home: Path) -> None:
        """``home`` is an empty folder."""
        self.address, self._home = address, home
        trust = "insecure = true"
        if certificates:
            path = Path(certificates).expanduser().absolute()
            if not path.is_file():
                raise UsageError(f"superlink.root_certificates must be a PEM file, there is none at {path}")
            trust = f"root-certificates = {json.dumps(str(path))}"
        target = f"[superlink.{CONNECTION}]\naddress = {json.dumps(address)}\n{trust}\n"
        (home / "config.toml").write_text(f'[superlink]\ndefault = "{CONNECTION}"\n\n{target}')

    def ask(self, *arguments: str) -> dict[str, Any]:
        """Run ``flwr`` with ``arguments`` for its answer.

        Raises:
            RunFailed: it has none, or says that it failed.
        """
        with self._started(*arguments, "--format", "json") as process:
            text, _ = process.communicate()
        try:
            answer: dict[str, Any] = json.loads(text[text.index("{") :])
        except ValueError:
            answer = {"error-message": text.strip() or f"flwr ended with {process.returncode}"}
        if not answer.get("success"):  # the exit code is 0 all the same
            paragraphs = str(answer.get("error-message", "it does not say why")).strip().split("\n\n")
            reason = " ".join(paragraphs[-1].split())
            raise RunFailed(f"the SuperLink at {self.address} did not do `flwr {arguments[0]}`: {reason}")
        return answer

    @contextlib.contextmanager
    def log(self, run: str) -> Iterator[Iterator[str]]:
        """The lines of a run's log from its start until it ends."""
        with self._started("log", run, CONNECTION, "--stream") as process:
            assert process.stdout is not None
            yield iter(process.stdout)

    @contextlib.contextmanager
    def _started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "NO_COLOR": "1", "COLUMNS": "500"}
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and words
            [sys.executable, "-m", "flwr.cli.app", *arguments],
            env=os.environ | quiet | {"FLWR_HOME": str(self._home), "PYTHONIOENCODING": "utf-8"},
            cwd=self._home,
            start_new_session=True,  # Ctrl-C is ours to pass on
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


def _staged(folder: Path) -> Path:
    """A copy of what is shipped: ``flwr`` walks everything beside pyproject.toml, a virtual environment too."""
    app = folder / "app"
    app.mkdir()
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, app / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, app)
    return app


def _wait(link: SuperLink, run: str, stop: StopRequest, tell: Callable[[str], None]) -> None:
    told = failures = 0
    while True:
        told = _follow(link, run, stop, tell, told)
        try:
            state = link.ask("list", CONNECTION, "--run-id", run)["runs"][0]
            failures = 0
        except RunFailed:
            failures += 1
            if failures == MAX_FAILURES:
                raise
        else:
            if _is_over(state, run, link.address):
                return
        time.sleep(PAUSE_SECONDS)


def _follow(link: SuperLink, run: str, stop: StopRequest, tell: Callable[[str], None], told: int) -> int:
    """Tell the log's lines after the first ``told``, until it ends; returns how many there were."""
    numbers = [told]
    with link.log(run) as lines:

        def read() -> None:
            with contextlib.suppress(ValueError):  # closed under its hands
                for number, line in enumerate(lines, start=1):
                    text = unmarked(line)
                    if number > numbers[0]:
                        numbers[0] = number
                        if text is not None:
                            tell(text)

        reader = threading.Thread(target=read, name="log", daemon=True)
        reader.start()
        while reader.is_alive():
            reader.join(LOOK_SECONDS)
            if stop.requested:
                raise Interrupted(
                    f"run {run} on the SuperLink at {link.address} is stopped; its finished rounds are saved there"
                )
    return numbers[0]


def _is_over(state: Mapping[str, Any], run: str, address: str) -> bool:
    """Whether the run is done.

    Raises:
        RunFailed: it failed; or UsageError, if that is how it ended.
        Interrupted: it was stopped.
    """
    status = str(state["status"])
    if status == "finished:stopped":
        raise Interrupted(f"run {run} was stopped on the SuperLink at {address}; its finished rounds are saved there")
    if status.startswith("finished") and status != "finished:completed":
        raise from_details(str(state.get("status-details", "")))
    return status == "finished:completed"
