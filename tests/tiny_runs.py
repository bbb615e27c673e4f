"""Run directories of a model of three weights, whose rounds can be told apart by hand."""

from pathlib import Path
from typing import Any

import torch

from common import flat
from common.layers import load
from common.settings import Settings
from server.phases import Phases
from server.report import NodeReport, Round
from server.storage.run_directory import RunDirectory

SETTINGS = load()


def tiny_run(out: Path, name: str = "a") -> RunDirectory:
    return RunDirectory.create(out, name, SETTINGS)


def tiny_settings(changes: dict[str, Any]) -> Settings:
    return load(("the test", changes))


def tiny_state(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((1, 2), float(value)), "bias": torch.full((1,), float(value))}


def tiny_weights(value: float) -> flat.ArrayRecord:
    state = tiny_state(value)
    return flat.ArrayRecord(flat.form_of(state), flat.vector_of(state))


def tiny_round(number: int) -> Round:
    nan = float("nan")
    return Round(
        number=number,
        state=tiny_state(number),
        reports=(
            NodeReport(
                *(f"t/{number}/pi-1", number, "pi-1", 3, 6000, tiny_weights(number + 0.5), "accepted", ""),
                *(0.75, 2.0, 2.25, 100, 101, 1),
            ),
            NodeReport(
                *(f"t/{number}/pi-2", number, "pi-2", 4, 0, None, "rejected", "fc3.bias holds NaN"),
                *(nan, 0.0, 2.5, 100, 101, 1),
            ),
            NodeReport(
                *(f"t/{number}/pi-3", number, "pi-3", -1, 0, None, "expired", "link lost"),
                *(nan, 0.0, 2.5, 100, 0, 0),
            ),
        ),
        averaged=True,
        train_loss=0.75,
        share_of_data=0.1,
        seconds=2.5,
        fit_seconds=2.0,
        overhead_seconds=0.5,
        bytes_down=300,
        bytes_up=202,
        phases=Phases(broadcast=0.125, train=2.0, train_median=1.5, wait=0.25, average=0.0625, evaluate=1.25),
    )


def contents_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name not in (".lock", "run.log")}
