"""One run from its door to its exit code: settings, run directory and engine are put together here."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from common import models
from common.address import join_address, parse_address
from common.errors import FedgeError, Interrupted, RunFailed, RunFinished, UsageError
from common.layers import Layer, load
from common.settings import Settings, as_yaml
from common.wire import PROTOCOL_VERSION
from server.admission.members import TOKEN_HOURS
from server.admission.passport import Control
from server.app import NEWEST, server_app
from server.baselines import check_baseline
from server.centralized import NoNodes
from server.console import Console, make_console
from server.engines.ray import ray_grid
from server.engines.superlink import submit
from server.fleet import Fleet
from server.gathering import gather
from server.link.roster import Roster
from server.opening import opened, resolve, resumed_path
from server.simulation import Simulation
from server.stopping import StopRequest
from server.storage.run_directory import RunDirectory

CLIENT_APP, TOGETHER = "client.app:app", "client.together"
INSECURE = (
    "the link is plaintext and open to everyone who reaches its port (link.insecure); every node needs --insecure too"
)


def run(given: Sequence[Layer], arguments: argparse.Namespace) -> int:
    """Conduct the run that the command line asks for; returns the exit code."""
    with make_console(arguments.quiet, arguments.json) as console:
        directory: list[Path] = []
        try:
            engine = load(*given).run.engine
            if arguments.superlink is not None and engine != "superlink":
                raise UsageError(f"--superlink names a SuperLink, the engine is {engine}: add --engine superlink")
            if engine == "superlink":
                _on_superlink(given, arguments, console)
            else:
                with StopRequest().on_signals(console.notice) as stop:
                    resumed = resumed_path(arguments.resume, given)
                    settings = resolve(given, resumed)
                    _on_engine(settings, resumed, console, stop, directory)
        except Interrupted as error:
            kept = [path for path in directory if path.exists()]  # one without a saved round is gone by now
            hint = f"; continue with: python -m server --resume {shlex.quote(str(kept[0]))}" if kept else ""
            console.interrupted(f"{error}{hint}")
            return error.exit_code
        except FedgeError as error:
            console.failed(str(error))
            return error.exit_code
    return 0


def print_settings(given: Sequence[Layer], arguments: argparse.Namespace) -> int:
    """Show what the settings come to; returns the exit code.

    Raises:
        UsageError: they are not valid, or there is no such run to resume.
    """
    print(as_yaml(resolve(given, resumed_path(arguments.resume, given))), end="", flush=True)
    return 0


def _on_engine(
    settings: Settings, resumed: Path | None, console: Console, stop: StopRequest, directory: list[Path]
) -> None:
    nodes = settings.simulation.nodes
    if settings.run.engine == "superlink":  # a resumed run's own settings say so
        raise UsageError(
            f"{resumed} is a run on a SuperLink: resume it there with --engine superlink, or here with --engine link"
        )
    if settings.run.baseline == "centralized":
        torch.set_num_threads(settings.client.threads or 1)  # 0 probes, on a client: here figures come again
        with opened(settings, resumed, console, None) as run:
            directory.append(run.path)
            _conduct(run, NoNodes(), console, stop)
    elif settings.run.engine == "ray":
        if not nodes:
            raise UsageError("--engine ray runs virtual nodes: say how many with --simulate N")
        with ray_grid(CLIENT_APP, nodes) as grid, opened(settings, resumed, console, None) as run:
            directory.append(run.path)
            _conduct(run, grid, console, stop)
    elif nodes:
        simulation = Simulation(CLIENT_APP, nodes, settings.simulation.workers, TOGETHER)
        with simulation, opened(settings, resumed, console, None) as run:
            directory.append(run.path)
            simulation.listener = console.delivered
            _conduct(run, simulation, console, stop)
    else:
        _on_link(settings, resumed, console, stop, directory)


def _on_superlink(given: Sequence[Layer], arguments: argparse.Namespace, console: Console) -> None:
    """Everything but the command line is read where the SuperLink runs: run directories, a resumed run's settings."""
    settings = load(*given)
    check_baseline(settings)
    if settings.simulation.nodes:
        raise UsageError("--simulate N runs virtual nodes, a SuperLink has nodes of its own: leave out one of the two")
    if not settings.superlink.address:
        raise UsageError("--engine superlink needs to know where: add --superlink HOST:PORT")
    address = _superlink_address(settings.superlink.address)
    asked = {key: value for _, values in given for key, value in values.items()}
    run_config: dict[str, str | bool] = {"settings": json.dumps(asked), "json": bool(arguments.json)}
    if arguments.resume is not None:
        run_config["resume"] = arguments.resume or NEWEST
    warning = "stopping the run on the SuperLink; once more to leave without waiting for it"
    with StopRequest().on_signals(lambda _: console.notice(warning)) as stop:
        certificates = settings.superlink.root_certificates
        submit(address, certificates, run_config, stop, lambda name: console.submitted(name, address), console.pass_on)


def _superlink_address(text: str) -> str:
    host, port = parse_address(text, "superlink.address")
    if not text.strip().endswith(f":{port}"):  # the link's own port would be taken
        raise UsageError(
            f"superlink.address must be HOST:PORT, got {text!r:.60} (a SuperLink's own choice is port 8000)"
        )
    return join_address(host, port)


def _on_link(
    settings: Settings, resumed: Path | None, console: Console, stop: StopRequest, directory: list[Path]
) -> None:
    state = models.initial_state(settings.model.name, seed=0)
    model_bytes = sum(value.numel() * value.element_size() for value in state.values())
    control = None if settings.link.insecure else Control.open()
    with Fleet(settings, _roster(settings, control), model_bytes, console, control) as fleet:
        address = join_address(settings.link.host, fleet.port)
        token = str(control.members.issue(TOKEN_HOURS, reusable=True)) if control else ""
        try:
            with opened(settings, resumed, console, address, token) as run:
                directory.append(run.path)
                if control is None:
                    console.notice(INSECURE)
                with _announced(run, fleet, control, console):
                    _conduct_with_nodes(run, fleet, console, stop)
                assert run.best is not None
                fleet.say_farewell(f"the run is done, best accuracy {run.best.accuracy:.2%}", run_done=True)
        except RunFinished:  # who waits for its server since that was killed at the very end is told now
            fleet.say_farewell("the run is done", run_done=True)
            raise
        except FedgeError as error:
            fleet.say_farewell(f"the run ended: {error}"[:300], run_done=False)
            raise


def _roster(settings: Settings, control: Control | None) -> Roster:
    return Roster(
        settings.data.num_shards,
        settings.federation.max_own_examples,
        settings.federation.rejoin_seconds,
        declare=control.declare if control else None,
        codecs=(settings.link.codec, settings.link.broadcast_codec),
    )


@contextmanager
def _announced(run: RunDirectory, fleet: Fleet, control: Control | None, console: Console) -> Iterator[None]:
    """Let nodes on the local network find the server, if they shall."""
    link = run.settings.link
    if not link.announce:
        yield
        return
    from server.link.announce import announced  # here: nothing else needs zeroconf

    with announced(
        link.host,
        fleet.port,
        run=run.path.name,
        protocol=PROTOCOL_VERSION,
        enrol_port=fleet.enrol_port,
        authority=control.authority.fingerprint if control else "",
    ) as warning:
        if warning:
            console.notice(warning)
        yield


def _conduct_with_nodes(run: RunDirectory, fleet: Fleet, console: Console, stop: StopRequest) -> None:
    federation = run.settings.federation
    if run.checkpoint and run.checkpoint.round >= federation.rounds:
        # It was killed after its last round: nodes are on their way back, and have not heard that the run is done.
        with suppress(RunFailed):
            gather(fleet, federation.clients, federation.rejoin_seconds, lambda: stop.requested, lambda _: None)
    _conduct(run, fleet, console, stop)


def _conduct(run: RunDirectory, grid: Grid, console: Console, stop: StopRequest) -> None:
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    server_app(run, console, stop)(grid, context)
