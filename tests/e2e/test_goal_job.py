"""Rule: a run ends once it is at its goal, what came of it is kept, and what is kept is not run again."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.campaign import run
from benchmarks.goal_job import GoalJob
from common.errors import RunDirectoryError

TINY = ("data.num_shards=60000", "run.seed=1", "tensorboard.images_every=0")
FLAGS = ("--simulate", "2", "--rounds", "500", *(word for setting in TINY for word in ("--set", setting)))


def test_a_run_is_stopped_at_its_goal_kept_and_not_run_again(
    tmp_path: Path, own_state: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    del own_state  # it is in the environment of the run
    out, file = tmp_path / "runs", tmp_path / "kept" / "results.jsonl"
    asked = GoalJob("one", "smoke", 500, FLAGS, goal=2, measure="round", file=file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.campaign.LOOK_SECONDS", 0.1)
        assert run([asked], out, at_once=1) == 0
    assert "one: 200.00% after 2 rounds\n" in capfd.readouterr().out  # by its own measure
    kept = results.read(file)["one"]
    assert (kept.accuracy, len(kept.bytes)) == ([0, 1, 2], 2)
    assert kept.settings["data.num_shards"] == 60_000
    assert 3 <= len((out / "one" / "metrics.jsonl").read_text().splitlines()) < 501

    with pytest.raises(RunDirectoryError, match=r"was made with run\.seed 1, one needs 2 now: move it away"):
        replace(asked, flags=(*FLAGS, "--set", "run.seed=2")).check(out)
    file.unlink()
    asked.check(out)  # as after a campaign that was killed before it could keep it
    assert results.read(file) == {"one": kept}
    shutil.rmtree(out)
    assert run([asked], out, at_once=1) == 0
    assert [path.name for path in out.iterdir()] == [".lock"]
