"""Rule: a run directory holds the files and keys of the contract, and the best model so far."""

import json
import logging
from pathlib import Path

import torch
import yaml

from common.models import weights_sha256
from common.training import Evaluation
from server.storage.durable import read_json_lines
from server.storage.run_directory import RunDirectory
from server.storage.settings import read_settings, settings_layer
from tests.tiny_runs import tiny_round, tiny_run, tiny_settings, tiny_state

PAD = {"transform": "pad", "size": 32, "mean": 0.1307, "std": 0.3081}


def test_a_run_directory_holds_the_files_of_the_contract(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        assert run.commit(tiny_round(1), Evaluation(0.5, 0.8))
        run.tensorboard.mkdir()
        logging.getLogger("somebody").info("said something")
    names = {path.name for path in (tmp_path / "a").iterdir() if path.name != ".lock"}
    logs = {"settings.yaml", "metrics.jsonl", "ledger.jsonl", "run.log", "tensorboard"}
    assert names == logs | {"best.pt", "best.json", "last.pt", "last.prev.pt"}


def test_metrics_have_exactly_the_keys_of_the_contract(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        run.commit(tiny_round(1), Evaluation(0.5, 0.8, {0: 0.75, 9: 1.0}))
        assert run.metrics == [
            {"round": 0, "test_loss": 2.3, "test_accuracy": 0.1, "class_accuracy": [None] * 10, "best": True},
            {
                "round": 1,
                "test_loss": 0.5,
                "test_accuracy": 0.8,
                "class_accuracy": [0.75, None, None, None, None, None, None, None, None, 1.0],
                "train_loss": 0.75,
                "num_nodes": 1,
                "num_rejected": 1,
                "num_clipped": 0,
                "num_expired": 1,
                "num_late": 0,
                "share_of_data": 0.1,
                "seconds": 2.5,
                "fit_seconds": 2.0,
                "overhead_seconds": 0.5,
                "median_fit_seconds": 1.5,
                "broadcast_seconds": 0.125,
                "upload_seconds": None,
                "wait_seconds": 0.25,
                "average_seconds": 0.0625,
                "evaluate_seconds": 1.25,
                "write_seconds": None,
                "bytes_down": 300,
                "bytes_up": 202,
                "node_accuracy_mean": None,
                "node_accuracy_worst": None,
                "best": True,
            },
        ]


def test_the_ledger_has_a_line_for_every_verdict(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        run.commit(tiny_round(1), Evaluation(0.5, 0.8))
    lines = read_json_lines(tmp_path / "a" / "ledger.jsonl")
    assert lines[0] == {
        "task": "t/1/pi-1",
        "round": 1,
        "judged": 1,
        "node": "pi-1",
        "shard": 3,
        "examples": 6000,
        "sha256": weights_sha256(tiny_state(1.5)),
        "verdict": "accepted",
        "reason": "",
        "seconds": 2.25,
        "bytes": 101,
        "threads": 1,
    }
    assert [line["verdict"] for line in lines] == ["accepted", "rejected", "expired"]
    assert lines[1]["reason"] == "fc3.bias holds NaN"


def test_numbers_that_json_cannot_hold_are_null(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(float("inf"), 0.1))
        assert run.metrics[0]["test_loss"] is None
        assert json.loads((run.path / "best.json").read_text())["loss"] is None


def test_the_best_is_a_plain_state_dict_with_its_facts(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        run.commit(tiny_round(1), Evaluation(0.5, 0.8))
    model = torch.nn.Linear(2, 1)
    model.load_state_dict(torch.load(tmp_path / "a" / "best.pt", weights_only=True))
    assert model.weight.tolist() == [[1.0, 1.0]]
    assert json.loads((tmp_path / "a" / "best.json").read_text()) == {
        "round": 1,
        "accuracy": 0.8,
        "loss": 0.5,
        "sha256": weights_sha256(tiny_state(1)),
        "model": "lenet5",
        "preprocessing": PAD,
    }


def test_the_best_has_the_higher_accuracy_then_the_lower_loss_then_comes_first(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        figures = [(0.5, 0.8), (0.4, 0.7), (0.4, 0.8), (0.4, 0.8), (9.0, 0.9), (float("nan"), 0.9)]
        found = [run.commit(tiny_round(n), Evaluation(*figure)) for n, figure in enumerate(figures, start=1)]
        assert found == [True, False, True, False, True, False]
        assert [line["best"] for line in run.metrics] == [True, *found]
        assert run.best is not None
        assert run.best.round == 5


def test_later_changes_to_the_models_tensors_do_not_reach_what_is_kept(tmp_path: Path) -> None:
    state = tiny_state(0)
    with tiny_run(tmp_path) as run:
        run.begin(state, Evaluation(2.3, 0.9))
        state["weight"].add_(5)
        run.commit(tiny_round(1), Evaluation(0.5, 0.8))
        assert run.checkpoint is not None
        assert run.checkpoint.best_state["weight"].tolist() == [[0.0, 0.0]]


def test_settings_are_written_with_versions_and_read_back(tmp_path: Path) -> None:
    changed = tiny_settings({"training.learning_rate": 1e-05, "run.name": "a"})
    RunDirectory.create(tmp_path, "a", changed).close()
    written = yaml.safe_load((tmp_path / "a" / "settings.yaml").read_text())
    assert sorted(written["versions"]) == ["fedge", "flwr", "grpcio", "numpy", "platform", "python", "torch"]
    assert written["versions"]["torch"].startswith("2.")
    assert read_settings(tmp_path / "a") == changed
    assert settings_layer(tmp_path / "a")[1]["training.learning_rate"] == 1e-05
