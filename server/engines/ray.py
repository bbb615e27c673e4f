"""Flower's simulation engine on Ray: a Grid that is there while the context lasts.

Flower would run the ServerApp in a side thread, where exit codes and signals get lost. So its
ServerApp here only lends its Grid, and the run goes on in the main thread, as on every engine.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import logging
import os
import queue
import re
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.errors import RunFailed, UsageError
from common.quota import usable_cores
from server.engines.flower import last_line

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
CONNECT_SECONDS = 10.0
END_SECONDS = 3.0  # idle workers of the engine look up once a second
OBJECT_STORE_BYTES = 256 * 2**20  # LeNet5 takes 0.25 MB a task; Ray would take 30 % of the memory
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_LOG_LEVEL": "CRITICAL",  # tracebacks of errors that we report in one line
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # warns otherwise
}
# One node at a time on each CPU. A worker that dies is replaced: Flower would go on giving it tasks.
BACKEND = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0, "max_restarts": -1}}


@contextlib.contextmanager
def ray_grid(client_app: str, num_nodes: int) -> Iterator[Grid]:
    """A Grid of ``num_nodes`` virtual nodes, on the cluster of ``RAY_ADDRESS`` or on one of this machine's own.

    Call it from the main thread.

    Args:
        client_app: ``module:attribute``.
        num_nodes: node i trains on shard i.

    Raises:
        UsageError: Ray is not installed.
        RunFailed: it does not start.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "--engine ray needs Ray, which is not installed here; in Fedge's folder run:"
            " python -m pip install --constraint constraints.txt --editable '.[ray]'"
        )
    os.environ.update(QUIET)  # before Ray is imported; its workers inherit it
    torch.set_num_threads(1)  # as in the simulation: its figures are the same
    module, _, attribute = client_app.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    address = os.environ.get("RAY_ADDRESS", "")
    _check_answers(address)
    with _folder() as folder, _none_left() as look, _cluster(address, folder, num_nodes), _lent(app, num_nodes) as grid:
        try:
            yield grid
        finally:
            look()  # now: later, workers are orphans


def num_at_once(num_nodes: int, root: Path = Path("/")) -> int:
    """How many of ``num_nodes`` train side by side on this machine: one on each core that this process may use."""
    return min(usable_cores(root), num_nodes)


@contextlib.contextmanager
def _lent(client_app: Any, num_nodes: int) -> Iterator[Grid]:
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    grids: queue.SimpleQueue[Grid | Exception] = queue.SimpleQueue()
    over = threading.Event()
    lender = ServerApp()

    @lender.main()
    def lend(grid: Grid, context: Context) -> None:
        del context
        grids.put(grid)
        over.wait()

    def simulate() -> None:
        try:
            run_simulation(lender, client_app, num_nodes, backend_config=BACKEND)  # type: ignore[arg-type]
        except Exception as error:  # of use only if it comes before the grid
            grids.put(error)

    engine = threading.Thread(target=simulate, name="ray", daemon=True)
    engine.start()
    try:
        yield _first(grids)
    finally:
        over.set()
        engine.join(END_SECONDS)
        if engine.is_alive():
            _end_actors()
            engine.join(END_SECONDS)


def _first(grids: queue.SimpleQueue[Grid | Exception]) -> Grid:
    try:
        came = grids.get(timeout=START_SECONDS)
    except queue.Empty:
        raise RunFailed(f"Flower's simulation engine did not start within {START_SECONDS:g} s") from None
    if isinstance(came, Exception):
        raise RunFailed(f"Flower's simulation engine did not start: {last_line(str(came))}")
    return came


def _end_actors() -> None:
    """End nodes that hang: a thread of Flower's waits for them for ever, and the interpreter for it."""
    import ray

    gc.unfreeze()  # what an average has frozen (server.strategies) is not listed below
    # Not isinstance: it asks each object for its __class__, and some answer with a warning.
    for actor in [thing for thing in gc.get_objects() if type(thing) is ray.actor.ActorHandle]:
        with contextlib.suppress(ray.exceptions.RayError):  # it may have ended meanwhile
            ray.kill(actor)


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    # Sockets live in it, and their paths may have 107 characters: not below a long TMPDIR.
    folder = tempfile.mkdtemp(prefix=f"fedge-ray-{os.getpid()}-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _none_left() -> Iterator[Callable[[], None]]:
    """End what was running when the yielded function was called: workers outlive their master by seconds."""
    others, started = _children(), set[psutil.Process]()
    try:
        yield lambda: started.update(_children() - others)
    finally:
        for process in psutil.wait_procs(started, END_SECONDS)[1]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(started, END_SECONDS)


@contextlib.contextmanager
def _cluster(address: str, folder: str, num_nodes: int) -> Iterator[None]:
    import ray

    where = _existing(address) if address else _own(folder, num_nodes)
    former = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL, **where)
        except Exception as error:
            place = f"the Ray cluster at {address} (RAY_ADDRESS) cannot be used" if address else "Ray did not start"
            raise RunFailed(f"{place}: {last_line(str(error))}") from None
        finally:
            signal.signal(signal.SIGTERM, former)  # Ray puts its own there
        yield
    finally:
        ray.shutdown()


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _check_answers(address: str) -> None:
    """Ray itself tries for minutes, and says so in lines of its own."""
    if not (parts := re.fullmatch(r"\[?([^/]+?)\]?:(\d{1,5})", address)):
        return  # "auto" and the like: Ray's to judge
    try:
        socket.create_connection((parts[1], int(parts[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RunFailed(
            f"no Ray cluster answers at {address} (RAY_ADDRESS): {error}; start it with `ray start --head`,"
            " or unset RAY_ADDRESS to use this machine alone"
        ) from None


def _own(folder: str, num_nodes: int) -> dict[str, Any]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        "address": "local",
        "num_cpus": num_at_once(num_nodes),
        "num_gpus": 0,
        "_temp_dir": folder,
        "object_store_memory": OBJECT_STORE_BYTES,
        "runtime_env": {"env_vars": {"PYTHONPATH": path}},
    }


def _existing(address: str) -> dict[str, Any]:
    modules = [str(ROOT / name) for name in ("common", "client", "server")]
    return {"address": address, "runtime_env": {"py_modules": modules, "env_vars": QUIET}}
