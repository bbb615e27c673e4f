"""Rule: the tables of rounds to 99 % show what is kept of exactly these runs, and the runs are those of the paper."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import results
from benchmarks.campaign import marks
from benchmarks.goal_job import HELD_OUT, GoalJob
from benchmarks.job import TEST
from benchmarks.mcmahan import MCMAHAN_CAMPAIGN
from benchmarks.mcmahan_choices import FOUND, KINDS, PAPER, ROWS, TRIALS, Choice, Kind
from benchmarks.mcmahan_jobs import GROUPS, SEEDS, job, jobs
from benchmarks.mcmahan_tables import tables
from benchmarks.results import Result
from common import mnist, shards
from common.command_line import layers
from common.settings import Settings
from server.__main__ import _flags, _parser
from server.opening import resolve

ROW = ROWS[5, 10]


def keep(asked: GoalJob, accuracies: list[float], **changes: object) -> None:
    """A run of ten nodes, each of which is sent and sends 250 KB a round."""
    traffic = [5_000_000] * (len(accuracies) - 1)
    result = Result(asked.name, asked.settings, asked.measure, accuracies, traffic, {"fedge": "0"}, "2026-11-25")
    results.append(asked.file, replace(result, **changes))  # type: ignore[arg-type]


def cells(file: Path, kind: Kind) -> list[str]:
    table = tables(file.parent, file).split("\n\n")[2 + 2 * KINDS.index(kind)]
    [line] = [line for line in table.splitlines() if line.startswith("| 5 | 10 |")]
    return line.strip("| ").split(" | ")[3:]


def resolved(asked: GoalJob) -> Settings:
    arguments = _parser().parse_args(asked.command(Path("out"))[3:])
    return resolve(layers(arguments, _flags(arguments)))


def test_without_results_nothing_has_run(tmp_path: Path) -> None:
    assert cells(tmp_path / "none.jsonl", "iid") == ["20", *["not run yet"] * 4]
    assert cells(tmp_path / "none.jsonl", "two-labels") == ["229", *["not run yet"] * 4]


def test_a_seed_that_got_there_and_one_that_gave_up(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    keep(job(ROW, "iid", 1, file), [0.1, 0.98, 0.99])
    assert cells(file, "iid") == ["20", "1.5 (1 seed)", "2.0 (1 seed)", "10.0 MB (1 seed)", "99.00 % (1 seed)"]
    keep(job(ROW, "iid", 2, file), [0.1, *[0.985] * 100])
    assert cells(file, "iid")[1] == "1.2 (1.0–1.5, 2 of 3 seeds)"
    keep(job(ROW, "iid", 3, file), [0.1, *[0.98] * 100])
    assert cells(file, "iid") == [
        *("20", "1.5 (1.0–> 100)", "> 100 (2.0–> 100)"),
        *("∞ (10.0 MB–∞)", "98.50 % (98.00–99.00 %)"),
    ]
    assert cells(file, "two-labels")[1] == "not run yet"


@pytest.mark.parametrize(
    "changes",
    [{"settings": {"training.learning_rate": 7.0}}, {"measure": HELD_OUT}, {"accuracy": [0.1, 0.98]}, {"name": "x"}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_result_of_another_run_or_a_shorter_one_does_not_count(tmp_path: Path, changes: dict[str, object]) -> None:
    asked = job(ROW, "iid", 1, tmp_path / "r.jsonl")
    keep(asked, [0.1, 0.99], **changes)
    assert asked.result() is None
    keep(asked, [0.1, 0.99])
    assert asked.finished(tmp_path)


@pytest.mark.parametrize("key", PAPER, ids=str)
def test_a_row_is_that_of_the_paper(key: tuple[int, int]) -> None:
    settings = resolved(job(ROWS[key], "two-labels", 2))
    training = settings.training
    assert (training.local_epochs, training.batch_size) == key
    assert (training.optimizer, training.momentum, training.weight_decay) == ("sgd", 0, 0)
    assert training.schedule == "constant"
    assert (settings.simulation.nodes, settings.data.num_shards, settings.federation.fraction) == (100, 100, 0.1)
    assert (settings.data.partition, settings.data.labels_per_shard, settings.run.seed) == ("by_label", 2, 2)
    assert settings.federation.rounds >= PAPER[key][1]


def test_two_labels_a_node_are_two_pieces_of_300_of_the_sorted_images() -> None:
    labels = mnist.load_labels("train")
    order = np.argsort(labels, kind="stable")
    piece = np.empty(60_000, dtype=int)
    piece[order] = np.arange(60_000) // 300  # of 200
    settings = resolved(job(ROW, "two-labels", SEEDS[0]))
    for part in shards.partition(labels, settings.data, settings.run.seed):
        assert sorted(np.bincount(piece[part])[np.unique(piece[part])]) == [300, 300]


@pytest.mark.parametrize(("kind", "choice"), [(kind, choice) for kind in KINDS for choice in TRIALS[kind]])
def test_a_trial_goes_by_5000_training_images_that_are_held_out(kind: Kind, choice: Choice) -> None:
    asked = job(choice, kind, 1)
    settings = resolved(asked)
    assert asked.measure == HELD_OUT
    assert shards.num_held_out(600, settings.data.holdout) * 100 == 5_000
    assert settings.simulation.nodes == 100


@pytest.mark.parametrize(("kind", "choice"), [(kind, choice) for kind in KINDS for choice in FOUND[kind]])
def test_what_was_found_is_measured_on_the_test_set_as_the_rows_are(kind: Kind, choice: Choice) -> None:
    asked = job(choice, kind, 1)
    settings = resolved(asked)
    assert asked.measure == TEST
    assert settings.data.holdout == 0
    assert (settings.simulation.nodes, settings.federation.fraction) == (100, 0.1)


def test_what_was_tried_is_in_the_table_with_its_one_seed(tmp_path: Path) -> None:
    file, choice = tmp_path / "r.jsonl", TRIALS["iid"][0]
    keep(job(choice, "iid", 1, file), [0.0, 0.5, *[0.986] * 24])
    text = tables(tmp_path, file)
    [line] = [line for line in text[text.index("### What was tried") :].splitlines() if f"| {choice.title} |" in line][
        :1
    ]
    assert line == f"| {choice.title} | 2.0 | > 25 | ∞ | 98.60 % |"  # 0.485 / 0.486 of a round is 1.00


def test_every_run_has_a_name_of_its_own_and_first_seeds_come_first() -> None:
    names = [each.name for each in jobs(GROUPS)]
    assert len(set(names)) == len(names)
    num_first = len(ROWS) * len(KINDS) + sum(len(group[kind]) for group in (FOUND, TRIALS) for kind in KINDS)
    assert all(name.endswith("seed1") for name in names[:num_first])
    assert not any(name.endswith("seed1") for name in names[num_first:])


def test_the_page_has_a_place_for_the_tables() -> None:
    begin, end = marks("bench-long")
    assert begin in (page := MCMAHAN_CAMPAIGN.document.read_text(encoding="utf-8"))
    assert end in page


def test_the_profile_for_two_labels_is_what_was_found(tmp_path: Path) -> None:
    found = resolved(job(FOUND["two-labels"][-1], "two-labels", SEEDS[0], tmp_path / "kept.jsonl"))
    words = ["--config", "mcmahan-99-two-labels", "--simulate", "100", "--seed", str(SEEDS[0])]
    arguments = _parser().parse_args(words)
    profile = resolve(layers(arguments, _flags(arguments)))

    for section in ("data", "model", "preprocessing", "strategy", "link"):
        assert getattr(profile, section) == getattr(found, section)
    without_use = {"schedule_gamma"}  # of a schedule that is constant
    assert profile.training.model_dump(exclude=without_use) == found.training.model_dump(exclude=without_use)
    assert profile.federation.fraction == found.federation.fraction
