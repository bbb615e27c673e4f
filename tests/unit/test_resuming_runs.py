"""Rule: a run goes on after its last saved round, as the same run, or a sentence says why it does not."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import RunDirectoryError, SettingsError
from common.models import weights_sha256
from common.training import Evaluation
from server.storage.checkpoint import Kept
from server.storage.folders import newest_unfinished
from server.storage.run_directory import RunDirectory
from server.storage.settings import check_same, read_settings
from tests.tiny_runs import SETTINGS, tiny_round, tiny_run, tiny_settings, tiny_state


def test_a_run_goes_on_after_its_last_round(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        kept = Kept({"m": torch.tensor([2.0])}, {"r": 5}, {"failed_rounds": 1})
        run.commit(tiny_round(1), Evaluation(0.5, 0.8), kept)
        run_id = run.run_id
    with RunDirectory.open_existing(tmp_path / "a") as run:
        assert run.notices == []
        assert run.checkpoint is not None
        assert (run.run_id, run.settings, run.checkpoint.round) == (run_id, SETTINGS, 1)
        assert run.checkpoint.strategy_state == {"m": torch.tensor([2.0])}
        assert run.checkpoint.random_states == {"r": 5}
        assert run.checkpoint.counters == {"failed_rounds": 1}
        assert weights_sha256(run.checkpoint.state) == weights_sha256(tiny_state(1))
        assert not run.commit(tiny_round(2), Evaluation(0.6, 0.7))
        assert [line["round"] for line in run.metrics] == [0, 1, 2]


def test_where_the_running_average_is_tested_it_is_the_best_and_the_newest_is_gone_on_from(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        assert run.commit(replace(tiny_round(2), average=tiny_state(1.5)), Evaluation(0.5, 0.8))
    with RunDirectory.open_existing(tmp_path / "a") as run:
        assert run.notices == []
        assert run.checkpoint is not None
        assert weights_sha256(run.checkpoint.state) == weights_sha256(tiny_state(2))
    found = torch.load(tmp_path / "a" / "best.pt", weights_only=True)
    assert (
        weights_sha256(found)
        == weights_sha256(tiny_state(1.5))
        == json.loads((tmp_path / "a" / "best.json").read_text())["sha256"]
    )


def test_nothing_to_resume_is_a_sentence_that_names_the_folder(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunDirectoryError) as error:
            newest_unfinished(out)
        assert str(error.value) == (
            f"nothing to resume: {out} holds no run; start one without --resume, or name its directory"
        )
    with pytest.raises(
        RunDirectoryError, match=r"nothing to resume: .* is not a run directory \(no settings\.yaml in it\)"
    ):
        RunDirectory.open_existing(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
    (tmp_path / "a" / "last.pt").unlink()  # somebody's mistake: there is something to lose
    with pytest.raises(RunDirectoryError, match="a holds no checkpoint yet"):
        RunDirectory.open_existing(tmp_path / "a")


@pytest.mark.parametrize("torn", [b"", b'{"round": 0, "te', b'{"round": 0}\n'])
def test_a_run_whose_server_was_killed_before_round_0_was_saved_begins_anew(tmp_path: Path, torn: bytes) -> None:
    tiny_run(tmp_path).close()
    (tmp_path / "a" / "metrics.jsonl").write_bytes(torn)
    (tmp_path / "a" / ".last.pt.99.tmp").write_bytes(b"half")
    assert newest_unfinished(tmp_path) == tmp_path / "a"
    with RunDirectory.open_existing(tmp_path / "a") as run:
        run.continue_with(SETTINGS)
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        assert run.notices == []
        assert [line["test_loss"] for line in run.metrics] == [2.3]
    assert not (tmp_path / "a" / ".last.pt.99.tmp").exists()


def test_bare_resume_takes_the_newest_unfinished_run(tmp_path: Path) -> None:
    for age, name in enumerate(("newest-but-finished", "newer", "older")):
        with tiny_run(tmp_path, name) as run:
            run.begin(tiny_state(0), Evaluation(2.3, 0.1))
            if age == 0:
                run.finish()
        os.utime(tmp_path / name / "last.pt", (1000 - age, 1000 - age))
    with tiny_run(tmp_path, "begun-last-but-not-saved") as run:
        assert newest_unfinished(tmp_path) == run.path
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        run.finish()
    assert newest_unfinished(tmp_path) == tmp_path / "newer"
    for name in ("newer", "older"):
        with RunDirectory.open_existing(tmp_path / name) as run:
            run.finish()
    with pytest.raises(RunDirectoryError, match="holds no unfinished run"):
        newest_unfinished(tmp_path)


def test_a_finished_run_says_so_unless_more_rounds_are_asked_for(tmp_path: Path) -> None:
    two = tiny_settings({"federation.rounds": 2})
    with RunDirectory.create(tmp_path, "a", two) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        run.commit(tiny_round(1), Evaluation(0.5, 0.8))
        run.commit(tiny_round(2), Evaluation(0.4, 0.9))
        run.finish()
    with RunDirectory.open_existing(tmp_path / "a") as run:
        with pytest.raises(RunDirectoryError) as error:
            run.continue_with(two)
        assert str(error.value) == (
            f"{tmp_path / 'a'} is finished: 2 of 2 rounds are done, so there is nothing to resume;"
            " ask for more with --rounds"
        )
        run.continue_with(tiny_settings({"federation.rounds": 3, "link.port": 9000}))
        run.commit(tiny_round(3), Evaluation(0.4, 0.95))
        assert run.checkpoint is not None
        assert (run.checkpoint.finished, run.checkpoint.rounds_total) == (False, 3)
    assert read_settings(tmp_path / "a").federation.rounds == 3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training.learning_rate", 0.1, "training.learning_rate must stay 0.05 in a resumed run, got 0.1;"),
        ("data.partition", "dirichlet", "data.partition must stay 'iid' in a resumed run, got 'dirichlet';"),
        ("strategy.max_norm_ratio", 3.0, "strategy.max_norm_ratio must stay 5.0 in a resumed run, got 3.0;"),
        ("link.codec", "int8", "link.codec must stay 'float32' in a resumed run, got 'int8';"),
        ("run.seed", 1, "run.seed must stay 42 in a resumed run, got 1;"),
        (
            "federation.rounds",
            4,
            "federation.rounds must be at least 5, the rounds that the resumed run has done, got 4",
        ),
    ],
)
def test_a_changed_setting_of_the_learning_is_refused(key: str, value: object, message: str) -> None:
    before = {"training.learning_rate": 0.05, "strategy.max_norm_ratio": 5.0}
    with pytest.raises(SettingsError) as error:
        check_same(tiny_settings(before), tiny_settings(before | {key: value}), rounds_done=5)
    assert str(error.value).startswith(message)


def test_settings_that_do_not_change_the_learning_may_change() -> None:
    other: dict[str, Any] = {"federation.rounds": 20, "federation.clients": 5, "link.port": 1, "client.threads": 4}
    other |= {"run.out": "elsewhere", "run.name": "b", "run.engine": "ray"}
    check_same(SETTINGS, tiny_settings(other), rounds_done=10)
