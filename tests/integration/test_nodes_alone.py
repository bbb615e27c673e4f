"""Rule: a node alone learns the same, simulated, with workers, resumed or over sockets; round 1 is that of FedAvg."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from common import mnist, models, shards
from common.errors import Interrupted
from common.layers import load
from common.records import task_config
from common.settings import Settings
from common.training import Evaluation
from server import strategies
from server.conductor import conduct
from server.console import make_console
from server.fleet import Fleet
from server.grids import NodeGrid
from server.link.roster import Roster
from server.local_only import LocalOnly
from server.plan import Plan
from server.simulation import Simulation
from server.stopping import StopRequest
from server.storage.run_directory import RunDirectory
from server.updates.screening import Screen
from tests.link_twins import PATIENCE_SECONDS, Diary, hello, real_node
from tests.scripted_grid import everybody

CLIENT_APP = "client.app:app"

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(**changes: Any) -> Settings:
    """100 images a shard, so that a fit takes a moment, and a network that is quickly tested."""
    values = {"data.num_shards": 600, "federation.rounds": 2, "federation.clients": 2, "model.name": "mlp"}
    values |= {"run.baseline": "local-only"}
    return load(("the test", values | {key.replace("_", ".", 1): value for key, value in changes.items()}))


def simulate(run: RunDirectory, num_workers: int = 1, stop: bool = False) -> RunDirectory:
    """Conduct ``run`` to its end, or to the end of its next round: the stop comes while a node trains."""
    request = StopRequest()
    with run, make_console(quiet=True, json=False) as console, Simulation(CLIENT_APP, 2, num_workers) as grid:
        grid.listener = lambda _: setattr(request, "requested", stop)
        conduct(run, grid, console, request)
    return run


def figures(run: RunDirectory) -> list[dict[str, Any]]:
    """What metrics.jsonl and ledger.jsonl say, less what differs from run to run."""
    lines = [line for name in ("metrics", "ledger") for line in (run.path / f"{name}.jsonl").read_text().splitlines()]
    objects = map(json.loads, lines)
    return [{k: v for k, v in each.items() if not k.endswith("seconds") and k != "task"} for each in objects]


def test_resumed_with_workers_it_is_the_run_that_was_not_stopped(tmp_path: Path) -> None:
    straight = simulate(RunDirectory.create(tmp_path, "straight", tiny()))
    with pytest.raises(Interrupted, match="round 1 is saved"):
        simulate(RunDirectory.create(tmp_path, "stopped", tiny()), stop=True)
    stopped = simulate(RunDirectory.open_existing(tmp_path / "stopped"), num_workers=2)
    assert figures(stopped) == figures(straight)
    ours, theirs = (torch.load(run.path / "best.pt", weights_only=True) for run in (stopped, straight))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    last = straight.metrics[-1]
    assert last["test_accuracy"] == last["local_accuracy_best"] > last["local_accuracy_worst"]
    assert last["local_accuracy_mean"] == (last["local_accuracy_best"] + last["local_accuracy_worst"]) / 2

    averaged = simulate(RunDirectory.create(tmp_path, "averaged", tiny(run_baseline="none")))
    alone, together = ([line["sha256"] for line in figures(run) if "sha256" in line] for run in (straight, averaged))
    assert alone[:2] == together[:2]  # from the same start; what is sent in round 2 differs
    assert set(alone[2:4]).isdisjoint(together[2:4])


def learn(grid: NodeGrid, settings: Settings) -> list[str]:
    """The sums of a node's own weights after each of two rounds."""
    parts = shards.partition(mnist.load_labels("train"), settings.data, settings.run.seed)
    config = task_config(settings, "run", tuple(shards.digest(part) for part in parts))
    screen = Screen([len(part) for part in parts], 1000, 0.0)
    plan = Plan("run", strategies.build(settings.strategy), screen, config, deadline_seconds=PATIENCE_SECONDS)
    start = models.initial_state(settings.model.name, settings.run.seed)
    alone = LocalOnly(grid, plan, start, lambda _: Evaluation(1.0, 0.5))
    return [done.reports[0].sha256 for done in alone.rounds({}, [1, 2], lambda _: everybody(grid.nodes()))]


def test_a_node_over_sockets_learns_the_same_bits_as_simulated() -> None:
    settings, diary, told = tiny(link_host="127.0.0.1", link_port=0), Diary(), list[str]()
    with ThreadPoolExecutor(1) as aside:
        with Fleet(settings, Roster(600, 1000), 79_510 * 4, diary) as fleet:
            living = aside.submit(real_node(fleet, hello("node-0", shard=0), told).live)
            diary.wait("node-0 joined with 0")
            over_sockets = learn(fleet, settings)
            fleet.say_farewell("the run is done", run_done=True)
        living.result(PATIENCE_SECONDS)
    with Simulation(CLIENT_APP, 1) as simulation:
        assert learn(simulation, settings) == over_sockets
    assert len(set(over_sockets)) == 2
