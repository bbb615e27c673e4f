"""Rule: a centralized run is a run like others, resumed bit for bit, and as good as a federation of one node."""

import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common.command_line import run_command
from common.models import State
from server import __main__ as server

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"model.name": "mlp", "training.batch_size": 1000}  # an epoch of all of MNIST takes a moment


class CtrlCInTheFirstRound(io.StringIO):
    """A standard output that interrupts its process when it reads that round 1 began."""

    def write(self, text: str) -> int:
        if '"round_started", "format": 1, "round": 1,' in text:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def command(out: Path, name: str, *flags: str, **changes: Any) -> int:
    """Exit code of ``python -m server``, in this process."""
    values = TINY | {key.replace("_", ".", 1): value for key, value in changes.items()}
    assignments = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    resumed = any(flag == "--resume" for flag in flags)
    with pytest.MonkeyPatch.context() as patch:
        naming = [] if resumed else ["--out", str(out), "--name", name]
        patch.setattr(sys, "argv", ["server", "--quiet", *naming, *assignments, *flags])
        with pytest.raises(SystemExit) as end:
            run_command(server.main, server.PROG)
    assert isinstance(end.value.code, int)
    return end.value.code


def figures(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Objects of a log without what differs from run to run."""
    objects = [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [
        {key: value for key, value in one.items() if not key.endswith("seconds") and key != "task"} for one in objects
    ]


def best(run: Path) -> State:
    state: State = torch.load(run / "best.pt", weights_only=True)
    return state


def test_stopped_and_resumed_it_is_the_run_that_was_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "straight", "--centralized", "--rounds", "3") == 0
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", CtrlCInTheFirstRound())
        assert command(tmp_path, "stopped", "--centralized", "--rounds", "3", "--json") == 130
    assert "round 1 is saved; continue with: python -m server --resume" in capsys.readouterr().err
    assert len(figures(tmp_path / "stopped")) == 2
    assert command(tmp_path, "stopped", "--resume", str(tmp_path / "stopped")) == 0

    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert figures(stopped) == figures(straight)
    assert figures(stopped, "ledger.jsonl") == figures(straight, "ledger.jsonl")
    assert all(torch.equal(value, best(straight)[key]) for key, value in best(stopped).items())
    ledger = figures(straight, "ledger.jsonl")
    assert [(line["node"], line["shard"], line["examples"]) for line in ledger] == [("central", 0, 60_000)] * 3
    assert figures(straight)[-1]["test_accuracy"] > 0.85


def test_a_federated_run_does_not_go_on_centralized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "run", "--simulate", "1", "--rounds", "1", data_num_shards=600) == 0
    flags = ("--resume", str(tmp_path / "run"), "--rounds", "2", "--centralized", "--set", "simulation.nodes=0")
    assert command(tmp_path, "run", *flags) == 2
    assert "must stay" in capsys.readouterr().err


def test_without_momentum_it_equals_a_federation_of_one_node_bit_for_bit(tmp_path: Path) -> None:
    changes = {"training_momentum": 0.0, "federation_rounds": 2}
    assert command(tmp_path, "central", "--centralized", client_threads=0, **changes) == 0
    assert command(tmp_path, "federated", "--simulate", "1", **changes) == 0
    central, federated = tmp_path / "central", tmp_path / "federated"
    same = ("round", "test_loss", "test_accuracy", "train_loss", "num_nodes", "share_of_data", "best")
    ours, theirs = ([{key: row.get(key) for key in same} for row in figures(run)] for run in (central, federated))
    assert ours == theirs
    assert all(torch.equal(value, best(federated)[key]) for key, value in best(central).items())
