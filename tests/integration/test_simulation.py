"""Rule: one seed gives one run, with any number of workers, and over sockets the same bits as simulated."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common import mnist, models, shards
from common.codecs import by_name
from common.errors import Interrupted, RunFailed
from common.layers import load
from common.models import State
from common.records import task_config
from common.settings import Settings
from server import strategies
from server.conductor import conduct
from server.console import make_console
from server.fleet import Fleet
from server.grids import NodeGrid
from server.link.roster import Roster
from server.plan import Plan
from server.report import Round
from server.rounds import rounds
from server.simulation import Simulation
from server.stopping import StopRequest
from server.storage.run_directory import RunDirectory
from server.updates.screening import Screen
from tests.link_twins import PATIENCE_SECONDS, Diary, hello, real_node
from tests.scripted_grid import everybody

CLIENT_APP, TOGETHER = "client.app:app", "client.together"
NUM_NODES = 5  # of which two workers get three and two at once, if they train together

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(**changes: Any) -> Settings:
    """100 images a shard, so that a fit takes a moment."""
    values = {"data.num_shards": 600, "federation.rounds": 2, "federation.clients": 2, "run.seed": 7}
    return load(("the test", values | {key.replace("_", ".", 1): value for key, value in changes.items()}))


def run_directory(out: Path, name: str, settings: Settings) -> RunDirectory:
    return RunDirectory.create(out, name, settings)


KEEPING = {"link_codec": "sign", "link_broadcast_codec": "int8"}  # one of them keeps its error


def simulate(out: Path, name: str, num_workers: int, together: str = TOGETHER) -> tuple[list[dict[str, Any]], State]:
    with run_directory(out, name, tiny(**KEEPING)) as run:
        play(run, num_workers, together)
    return outcome(out / name)


def play(run: RunDirectory, num_workers: int, together: str = TOGETHER) -> None:
    with (
        make_console(quiet=True, json=False) as console,
        Simulation(CLIENT_APP, NUM_NODES, num_workers, together) as grid,
    ):
        conduct(run, grid, console, StopRequest())


def outcome(path: Path) -> tuple[list[dict[str, Any]], State]:
    """Figures of metrics.jsonl less times, and best.pt."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    figures = [{key: value for key, value in json.loads(line).items() if not key.endswith("seconds")} for line in lines]
    return figures, torch.load(path / "best.pt", weights_only=True)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_stop_changes_nothing_though_nodes_remember_what_they_left_out(
    tmp_path: Path, num_workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, best = simulate(tmp_path, "whole", 1)
    with run_directory(tmp_path, "parted", tiny(federation_rounds=1, **KEEPING)) as run:
        play(run, 1)
    with RunDirectory.open_existing(tmp_path / "parted") as again:
        again.continue_with(tiny(**KEEPING))
        play(again, num_workers)
    found, found_best = outcome(tmp_path / "parted")
    assert found == figures
    assert all(torch.equal(found_best[key], best[key]) for key in best)
    assert "gone with the stop" not in capsys.readouterr().out


def test_one_seed_gives_one_run_with_any_number_of_workers_alone_or_together(tmp_path: Path) -> None:
    figures, best = simulate(tmp_path, "first", 1, together="")
    for name, num_workers in (("again", 1), ("with-two-workers", 2)):
        again, best_again = simulate(tmp_path, name, num_workers)
        assert again == figures
        assert best_again.keys() == best.keys()
        assert all(torch.equal(best_again[key], best[key]) for key in best)

    first, *others = figures
    assert first.keys() == {"round", "test_loss", "test_accuracy", "class_accuracy", "best"}
    assert [line["round"] for line in others] == [1, 2]
    for line in others:
        assert (line["num_nodes"], line["num_rejected"], line["num_expired"]) == (NUM_NODES, 0, 0)
        assert line["share_of_data"] == 500 / 60_000
        assert 0 < line["bytes_up"] < 1.1 * NUM_NODES * 61_706 / 8  # a bit a weight
        assert 0 < line["bytes_down"] < 1.1 * NUM_NODES * 61_706  # a byte a weight


def learn(grid: NodeGrid, settings: Settings) -> list[tuple[Round, str]]:
    """Two rounds on a grid, without evaluation, each with the ledger's SHA-256 of its first update."""
    parts = shards.partition(mnist.load_labels("train"), settings.data, settings.run.seed)
    config = task_config(settings, "run", tuple(shards.digest(part) for part in parts))
    screen = Screen([len(part) for part in parts], 1000, 0.0, codec=by_name(settings.link.codec, settings.link.top_k))
    strategy, holds_out = strategies.build(settings.strategy), settings.data.holdout > 0
    plan = Plan(
        *("run", strategy, screen, config, PATIENCE_SECONDS),
        nodes_evaluate=holds_out,
        broadcast_codec=by_name(settings.link.broadcast_codec, settings.link.top_k),
    )
    state = models.initial_state(settings.model.name, settings.run.seed)
    story = rounds(grid, plan, state, [1, 2], lambda _: everybody(grid.nodes()))
    return [(done, done.reports[0].sha256) for done in story]


@pytest.mark.parametrize(
    ("codec", "broadcast_codec"), [("float32", "float32"), ("int4", "float16"), ("sign", "int8"), ("top-k", "float32")]
)
def test_a_node_over_sockets_learns_the_same_bits_as_simulated(codec: str, broadcast_codec: str) -> None:
    """One node: two in one process would share its model. Two processes: see tests/e2e."""
    codecs = {"link_codec": codec, "link_broadcast_codec": broadcast_codec}
    settings = tiny(link_host="127.0.0.1", link_port=0, data_holdout=0.2, **codecs)
    diary, told = Diary(), list[str]()
    with ThreadPoolExecutor(1) as aside:
        with Fleet(settings, Roster(600, 1000), 61_706 * 4, diary) as fleet:
            living = aside.submit(real_node(fleet, hello("node-0", shard=0), told).live)
            diary.wait("node-0 joined with 0")
            over_sockets = learn(fleet, settings)
            fleet.say_farewell("the run is done", run_done=True)
        living.result(PATIENCE_SECONDS)
    with Simulation(CLIENT_APP, 1) as simulation:
        simulated = learn(simulation, settings)
    for (ours, our_sha256), (theirs, their_sha256) in zip(over_sockets, simulated, strict=True):
        assert [report.verdict for report in ours.reports] == ["accepted"]
        assert our_sha256 == their_sha256
        assert ours.reports[0].examples == 80
        assert [replace(each, node="sim-0") for each in ours.evaluations] == list(theirs.evaluations)
        assert ours.evaluations[0].num_examples == 20
        assert ours.train_loss == theirs.train_loss
        assert all(torch.equal(ours.state[name], theirs.state[name]) for name in theirs.state)
    assert diary.lines.count("node-0 delivered") == 2  # an evaluation is no delivery
    assert told[-1] == "the server says: the run is done"


def test_a_worker_that_dies_ends_the_run_with_a_sentence() -> None:
    with Simulation("tests.bad_apps:dies", 1, num_workers=2) as simulation, pytest.raises(RunFailed) as error:
        learn(simulation, tiny())
    assert str(error.value) == "a simulation worker died (out of memory?); try fewer with simulation.workers"


def test_nodes_that_cannot_train_say_why() -> None:
    with Simulation("tests.bad_apps:fails", 2) as simulation:
        (first, _), _ = learn(simulation, tiny())
    assert [(report.verdict, report.reason) for report in first.reports] == [
        ("rejected", "the node could not train: RuntimeError: no room left on node 0"),
        ("rejected", "the node could not train: RuntimeError: no room left on node 1"),
    ]


def test_a_stop_in_the_middle_of_a_fit_ends_the_round_and_is_no_bad_update() -> None:
    with Simulation("tests.bad_apps:interrupted", 2) as simulation, pytest.raises(Interrupted, match="stopped at once"):
        learn(simulation, tiny())
