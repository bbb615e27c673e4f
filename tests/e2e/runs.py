"""What a run directory holds, read as a person's own script would read it."""

import json
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of ``metrics.jsonl`` or ``ledger.jsonl``."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def rounds_of(run: Path) -> list[int]:
    """The rounds in ``metrics.jsonl``."""
    return [row["round"] for row in json_lines(run / "metrics.jsonl")]


def verdicts_of(run: Path) -> list[tuple[int, str, str]]:
    """(round, node, verdict) of every line of the ledger."""
    return [(line["round"], line["node"], line["verdict"]) for line in json_lines(run / "ledger.jsonl")]


def state_of(path: Path) -> dict[str, torch.Tensor]:
    """The ``state_dict`` in ``best.pt``, or the global model in ``last.pt``."""
    content = torch.load(path, weights_only=True)
    state: dict[str, torch.Tensor] = content["state"] if path.name.startswith("last") else content
    return state


def points_of(run: Path) -> dict[str, list[int]]:
    """The steps of each tag that TensorBoard shows, in the order of the files."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [point.step for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def learned(run: Path, rounds: int) -> list[dict[str, object]]:
    """What the first ``rounds`` came to on any engine: figures, and digests of all updates, but no node names."""
    keys = ("round", "test_loss", "test_accuracy", "train_loss", "shard", "examples", "sha256", "verdict", "threads")
    lines = json_lines(run / "metrics.jsonl") + json_lines(run / "ledger.jsonl")
    return [{key: line.get(key) for key in keys} for line in lines if line["round"] <= rounds]


def assert_same_learning(run: Path, reference: Path) -> None:
    """Both came to the same models, bit for bit, round by round to the same figures, and show each round once."""
    for name in ("best.pt", "last.pt"):
        state, expected = state_of(run / name), state_of(reference / name)
        assert list(state) == list(expected)
        assert all(torch.equal(state[key], expected[key]) for key in expected), name
    learned = ("round", "test_loss", "test_accuracy", "train_loss", "num_nodes", "best")
    figures, wanted = (
        [{key: row.get(key) for key in learned} for row in json_lines(folder / "metrics.jsonl")]
        for folder in (run, reference)
    )
    assert figures == wanted
    rounds = [row["round"] for row in wanted]
    assert points_of(run)["test/accuracy"] == rounds
    assert points_of(run)["train/loss"] == rounds[1:]
    accepted = [line[:2] for line in verdicts_of(run) if line[2] == "accepted"]
    assert accepted == [(number, node) for number in rounds[1:] for node in "ab"]
