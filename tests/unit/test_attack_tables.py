"""Rule: the tables of attacks show the figures of finished runs, and every run is the attack against the defence."""

import json
from pathlib import Path

import pytest

from benchmarks.attack_jobs import DEFENCES, KINDS, Defence, job, jobs
from benchmarks.attack_tables import tables
from benchmarks.attacks import ATTACKS_CAMPAIGN
from benchmarks.campaign import marks
from benchmarks.hostile_nodes import ATTACKS
from benchmarks.hostile_run import _parser
from common.command_line import layers
from server.opening import resolve


def test_a_cell_is_the_accuracy_after_the_last_round_of_a_finished_run(tmp_path: Path) -> None:
    for run, accuracies in ((job("default", "iid"), [0.5] * 10 + [0.75]), (job("none", "iid"), [0.9] * 10)):
        (tmp_path / run.name).mkdir()
        rows = [json.dumps({"round": n, "test_accuracy": accuracy}) + "\n" for n, accuracy in enumerate(accuracies)]
        (tmp_path / run.name / "metrics.jsonl").write_text("".join(rows))
    first, second = tables(tmp_path).split("\n\n")
    assert first.splitlines()[2] == "| none | not run yet | 75.00 % | not run yet | not run yet |"
    assert len(first.splitlines()) == len(second.splitlines()) == 2 + 1 + 6 * 3


def test_all_attacks_meet_all_defences_and_the_most_hostile_nodes_come_first() -> None:
    names = [each.name for each in jobs()]
    assert len(names) == len(set(names)) == 2 * 4 + 6 * 3 * 2 * 4
    telling = ["default", "none", "multikrum", "fedtrimmedavg"]
    first = [f"{attack}-iid-{d}" for d in telling for attack in (*(f"{name}-3" for name in ATTACKS), "peace")]
    assert names[: 4 * 7] == first
    assert len(jobs(["sybils"])) == 2 * 4 + 3 * 2 * 4


@pytest.mark.parametrize("defence", DEFENCES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_ten_nodes_of_a_hundred_shards_with_the_defence(kind: str, defence: Defence, tmp_path: Path) -> None:
    command = job(defence, "iid" if kind == "iid" else "dirichlet", "sybils", 3).command(tmp_path)
    arguments = _parser().parse_args(command[3:])
    assert (command[2], arguments.attack, arguments.num_hostile) == ("benchmarks.hostile_run", "sybils", 3)
    settings = resolve(layers(arguments, {}))
    strategy = settings.strategy
    assert (settings.simulation.nodes, settings.data.num_shards, settings.data.partition) == (10, 100, kind)
    assert settings.federation.rounds == 10
    is_screened = defence == "default"
    assert (strategy.clip_norm_ratio > 0, strategy.max_norm_ratio > 0) == (is_screened, is_screened)
    chosen = (strategy.name, strategy.trimmed_fraction, strategy.num_malicious_nodes, strategy.num_nodes_to_select)
    assert (
        chosen
        == {
            "none": ("fedavg", 0.2, 1, 5),
            "default": ("fedavg", 0.2, 1, 5),
            "fedtrimmedavg": ("fedtrimmedavg", 0.3, 1, 5),
            "multikrum": ("multikrum", 0.2, 3, 7),
        }[defence]
    )


def test_a_run_that_was_stopped_can_be_gone_on_with(tmp_path: Path) -> None:
    begun = job("none", "iid", "sybils", 3)
    (tmp_path / begun.name).mkdir()
    command = begun.command(tmp_path)
    arguments = _parser().parse_args(command[3:])
    assert (arguments.resume, arguments.rounds, arguments.attack) == (str(tmp_path / begun.name), 10, "sybils")


def test_the_page_has_the_place_of_the_tables() -> None:
    begin, end = marks("attacks")
    assert begin in ATTACKS_CAMPAIGN.document.read_text()
    assert end in ATTACKS_CAMPAIGN.document.read_text()
