"""Flower ServerApp: how engines start a run, by name or with a run directory that is open."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.errors import FedgeError, SettingsError
from common.layers import Layer, from_assignments
from server.conductor import conduct
from server.console import Console, make_console
from server.engines.flower import FlowerGrid
from server.engines.telling import marked, to_exception
from server.grids import NodeGrid
from server.opening import opened, resolve, resumed_path
from server.stopping import StopRequest
from server.storage.run_directory import RunDirectory

NEWEST = "newest"  # as the run config's ``resume``: the newest unfinished run


def server_app(run: RunDirectory, console: Console, stop: StopRequest) -> ServerApp:
    """The ServerApp of one run whose directory is open already."""
    story = ServerApp()

    @story.main()
    def main(grid: Grid, context: Context) -> None:
        del context  # settings came through the door, with the run directory
        conduct(run, grid if isinstance(grid, NodeGrid) else FlowerGrid(grid), console, stop)

    return story


app = ServerApp()  # for engines that start it by name: Flower's SuperLink, `flwr run`


@app.main()
def main(grid: Grid, context: Context) -> None:
    """A run whose run config (``[tool.flwr.app.config]``) says what to do; Flower's own signal handling stays.

    Raises:
        RuntimeError: whatever ended the run, in the form of ``server.engines.telling``.
    """
    asked, lines = context.run_config, marked(sys.stdout)
    with make_console(quiet=True, json=bool(asked.get("json")), stream=lines, errors=lines) as console:
        try:
            given = from_run_config(asked)
            name = str(asked.get("resume", ""))
            resumed = resumed_path("" if name == NEWEST else name or None, given)
            with opened(resolve(given, resumed), resumed, console, None) as run:
                conduct(run, FlowerGrid(grid), console, StopRequest())
        except FedgeError as error:
            raise to_exception(error) from None


def from_run_config(asked: Mapping[str, object]) -> list[Layer]:
    """The settings in a Flower run config: ``settings`` is JSON, as our command line sends it; ``set`` is for people.

    Raises:
        SettingsError: one of them is not of its form.
    """
    text = str(asked.get("settings", "{}"))
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise SettingsError(f"settings in the run config must be a JSON object of section.key, got {text!r:.60}")
    here = {"run.engine": "superlink"}  # `flwr run` names none
    return [("Flower", here), ("the submitted settings", settings), from_assignments(str(asked.get("set", "")).split())]
