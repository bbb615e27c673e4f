"""Rule: a run of a campaign that fails is told with its sentence, and none is started once a stop was asked for."""

import json
from pathlib import Path

import pytest

from benchmarks.campaign import Runs
from benchmarks.recipe_jobs import job

JOB = job("edge-tutorial", "iid", 1)


def test_a_run_that_cannot_go_on_is_told_in_the_servers_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / JOB.name
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps({"round": 0, "test_accuracy": 0.1}) + "\n")
    assert not Runs(tmp_path).run(JOB)
    said, errors = capfd.readouterr()
    assert (errors, said) == (
        "",
        f"{JOB.name}: stopped with 0 of 10 rounds, see {folder}.log: Error: nothing to resume: {folder} is not a run"
        " directory (no settings.yaml in it)\n",
    )


def test_after_a_stop_no_run_is_started(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.stop()
    assert runs.run(JOB)
    assert list(tmp_path.iterdir()) == []
