"""Rule: the recipes' tables show the figures of finished runs and nothing else, and runs are started only once."""

import json
from pathlib import Path

import pytest

from benchmarks.campaign import marks, write_between_marks
from benchmarks.job import Job
from benchmarks.recipe_jobs import RECIPES, SEEDS, Kind, job, jobs
from benchmarks.recipe_tables import tables
from common.command_line import layers
from common.errors import DataError, RunDirectoryError
from common.layers import CONFIGS
from common.settings import Settings
from server.__main__ import _flags, _parser
from server.opening import resolve

EDGE = job("edge-tutorial", "centralized", 1)  # 10 rounds

BEGIN, END = marks("recipes")


def write_run(out: Path, job: Job, accuracies: list[float], loss: float = 0.05, seconds: float = 6.0) -> Path:
    """A run with these test accuracies after rounds 0, 1, …; a round takes ``seconds``."""
    folder = out / job.name
    folder.mkdir(parents=True)
    rows = [
        {"round": number, "test_accuracy": accuracy, "test_loss": loss, **({"seconds": seconds} if number else {})}
        for number, accuracy in enumerate(accuracies)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def cells(out: Path, table: int, recipe: str) -> list[str]:
    """The row of ``recipe`` in the first or second table."""
    [line] = [line for line in tables(out).split("\n\n")[table].splitlines() if line.startswith(f"| `{recipe}` ")]
    return line.strip("| ").split(" | ")


def test_three_seeds_become_median_smallest_and_largest(tmp_path: Path) -> None:
    for seed, first, last in [(1, 0.84, 0.981), (2, 0.86, 0.983), (3, 0.85, 0.986)]:
        write_run(tmp_path, job("edge-tutorial", "centralized", seed), [0.1, first, *[0.99] * 8, last], loss=seed / 20)
    assert cells(tmp_path, 0, "edge-tutorial") == [
        *("`edge-tutorial`", "10", "84.28 %, 98.29 %"),
        *("85.00 % (84.00–86.00 %)", "98.30 % (98.10–98.60 %)", "99.00 %"),
        *("not run yet", "not run yet"),
    ]
    assert cells(tmp_path, 1, "edge-tutorial") == [
        *("`edge-tutorial`", "0.0496", "0.1000 (0.0500–0.1500)", "not run yet", "not run yet"),
        *("1.0 min", "not run yet", "not run yet"),
    ]


def test_federated_runs_show_last_and_best_round_loss_and_time(tmp_path: Path) -> None:
    kinds: tuple[tuple[Kind, float], ...] = (("iid", 0.98), ("dirichlet", 0.91))
    for kind, last in kinds:
        write_run(tmp_path, job("from-scratch", kind, 1), [0.1] * 9 + [0.985, last], loss=last, seconds=30)
    assert cells(tmp_path, 0, "from-scratch")[-2:] == ["98.00 % (98.50 %)", "91.00 % (98.50 %)"]
    row = cells(tmp_path, 1, "from-scratch")
    assert row[1:] == ["not given", "not run yet", "0.9800", "0.9100", "not run yet", "5.0 min", "5.0 min"]


def test_missing_seeds_are_counted_and_unfinished_runs_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, EDGE, [0.1] * 10 + [0.98])
    unfinished = write_run(tmp_path, job("edge-tutorial", "centralized", 2), [0.1] * 9 + [0.5])
    with (unfinished / "metrics.jsonl").open("a") as log:
        log.write('{"round": 10, "test_acc')  # a torn line, as a power cut leaves it
    assert cells(tmp_path, 0, "edge-tutorial")[4] == "98.00 % (1 of 3 seeds)"


def test_a_run_that_went_on_longer_counts_to_the_recipes_last_round(tmp_path: Path) -> None:
    write_run(tmp_path, EDGE, [0.1] * 10 + [0.98, 0.99])
    assert cells(tmp_path, 0, "edge-tutorial")[4:6] == [
        "98.00 % (1 of 3 seeds)",
        "98.00 % (1 of 3 seeds)",
    ]


def test_the_tables_stand_between_their_marks(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"before\n\n{BEGIN}\nold figures\n{END}\n\nafter\n")
    write_between_marks(document, "recipes", tables(tmp_path))
    once = document.read_text()
    assert once == f"before\n\n{BEGIN}\n\n{tables(tmp_path)}\n\n{END}\n\nafter\n"
    write_between_marks(document, "recipes", tables(tmp_path))
    assert document.read_text() == once


@pytest.mark.parametrize("text", ["no marks", BEGIN, f"{END} {BEGIN}"])
def test_a_document_without_marks_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(DataError, match="the place of the tables: restore them"):
        write_between_marks(tmp_path / "page.md", "recipes", "")
    with pytest.raises(DataError, match=r"cannot rewrite .*none\.md: No such file"):
        write_between_marks(tmp_path / "none.md", "recipes", "")


def test_every_recipe_is_run_and_first_seeds_come_first() -> None:
    assert sorted(RECIPES) == sorted(path.stem for path in (CONFIGS / "recipes").iterdir())
    names = [each.name for each in jobs()]
    assert len(set(names)) == len(names) == len(RECIPES) * sum(map(len, SEEDS.values()))
    assert names[:3] == [f"edge-tutorial-{kind}-seed1" for kind in ("centralized", "iid", "dirichlet")]
    assert [name[-1] for name in names] == sorted(name[-1] for name in names)
    assert [each.name for each in jobs(["gpu-lab"])] == [name for name in names if name.startswith("gpu-lab")]


def settings_of(asked: Job, out: Path) -> Settings:
    """What the server would make of the command of ``asked``."""
    assert asked.command(out)[1:3] == ["-m", "server"]
    arguments = _parser().parse_args(asked.command(out)[3:])
    settings = resolve(layers(arguments, _flags(arguments)))
    assert (settings.run.out, settings.run.name) == (str(out), asked.name)
    return settings


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_a_federated_run_is_the_recipe_on_ten_nodes(kind: Kind, tmp_path: Path) -> None:
    settings = settings_of(job("gpu-lab", kind, 1), tmp_path)
    assert (settings.simulation.nodes, settings.data.num_shards, settings.federation.rounds) == (10, 10, 50)
    assert (settings.data.partition, settings.data.dirichlet_alpha, settings.run.baseline) == (kind, 0.5, "none")
    assert (settings.model.name, settings.training.local_epochs, settings.run.seed) == ("lenet5-sigmoid", 1, 1)


def test_a_centralized_run_is_the_recipe_on_one_machine(tmp_path: Path) -> None:
    settings = settings_of(job("gpu-lab", "centralized", 3), tmp_path)
    assert (settings.simulation.nodes, settings.federation.rounds, settings.run.baseline) == (0, 50, "centralized")
    assert (settings.model.name, settings.training.local_epochs, settings.run.seed) == ("lenet5-sigmoid", 1, 3)


def test_a_run_is_started_then_gone_on_with_then_left_alone(tmp_path: Path) -> None:
    assert "--resume" not in EDGE.command(tmp_path)
    folder = write_run(tmp_path, EDGE, [0.1, 0.8])
    assert EDGE.command(tmp_path)[3:] == ["--resume", str(folder), "--rounds", str(EDGE.rounds), "--quiet"]
    assert not EDGE.finished(tmp_path)
    (folder / "metrics.jsonl").unlink()
    folder.rmdir()
    write_run(tmp_path, EDGE, [0.1] * 11)
    assert EDGE.finished(tmp_path)


def test_a_run_killed_before_its_first_save_is_cleared_away(tmp_path: Path) -> None:
    folder = write_run(tmp_path, EDGE, [])
    EDGE.check(tmp_path)
    assert not folder.exists()
    EDGE.check(tmp_path)


def test_a_run_made_with_an_older_recipe_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path, EDGE, [0.1])
    (folder / "last.pt").touch()
    recipe = (CONFIGS / "recipes" / "edge-tutorial.yaml").read_text()
    (folder / "settings.yaml").write_text(recipe)
    EDGE.check(tmp_path)
    (folder / "settings.yaml").write_text(recipe.replace("learning_rate: 0.02", "learning_rate: 0.05"))
    with pytest.raises(RunDirectoryError) as error:
        EDGE.check(tmp_path)
    expected = f"{folder} was made with training.learning_rate 0.05, {EDGE.name} needs 0.02 now: move it away"
    assert str(error.value) == expected
