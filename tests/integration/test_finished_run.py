"""Rule: a node that waits for the end of a run hears that it is done, also from a server that finds nothing to do."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common import fleet_pb2 as pb
from common import models
from common.errors import RunFinished
from common.training import Evaluation
from server import running
from server.console import make_console
from server.opening import opened
from server.report import Round
from server.stopping import StopRequest
from server.storage.run_directory import RunDirectory
from tests.e2e.processes import free_port
from tests.link_twins import PATIENCE_SECONDS, BareNode, hello, link_settings


def test_a_resumed_server_tells_that_the_run_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed after it had saved the end of the run, before it told its nodes. One is back already."""
    settings = link_settings(link_port=free_port(), link_insecure=True, link_announce=False, federation_rounds=1)
    state = models.initial_state(settings.model.name, 1)
    with RunDirectory.create(tmp_path, "run", settings) as run:
        run.begin(state, Evaluation(2.3, 0.1))
        run.commit(Round(1, state, (), False, 0.5, 0.0, 1.0, 0.0, 1.0, 0, 0), Evaluation(2.3, 0.1))
        run.finish()
    is_listening, is_back = threading.Event(), threading.Event()

    @contextmanager
    def opened_when_a_node_is_back(*arguments: Any) -> Iterator[RunDirectory]:
        is_listening.set()
        assert is_back.wait(PATIENCE_SECONDS)
        with opened(*arguments) as run:
            yield run

    monkeypatch.setattr(running, "opened", opened_when_a_node_is_back)
    with ThreadPoolExecutor(1) as aside, make_console(quiet=True, json=False) as console:
        served = aside.submit(running._on_link, settings, tmp_path / "run", console, StopRequest(), [])
        assert is_listening.wait(PATIENCE_SECONDS)
        with BareNode(settings.link.port) as node:
            node.say(pb.FromNode(hello=hello("a", shard=0)))
            node.hear("welcome")
            is_back.set()
            farewell = node.hear("farewell")
        assert (farewell.reason, farewell.run_done) == ("the run is done", True)
        with pytest.raises(RunFinished, match="is finished: 1 of 1 rounds are done"):
            served.result(PATIENCE_SECONDS)
