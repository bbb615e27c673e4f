"""Rule: the ClientApp says what its node holds, trains with the threads it is given, and puts its errors in a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from client.app import app, watching
from common import mnist, models, shards
from common.arrays import to_record
from common.errors import FedgeError
from common.layers import load
from common.records import OWN, identify, read_evaluation, read_holding, task_config

identify(run_id=1, node_id=1)
NO_SHARD = 'a node config needs partition-id=N, the number of a shard, or data="PATH", got '


def send(kind: str, node_config: dict[str, Any], content: RecordDict | None = None) -> Message:
    context = Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config={})
    return app(Message(content or RecordDict(), 1, kind), context)


def task_of(values: dict[str, object]) -> RecordDict:
    """Round 1 of a run with 200 shards of 300 examples."""
    settings = load(("test", {"data.num_shards": 200} | values))
    parts = shards.partition(mnist.load_labels("train"), settings.data, settings.run.seed)
    config = task_config(settings, "run", tuple(shards.digest(part) for part in parts))
    config["server-round"] = 1
    return RecordDict({"arrays": to_record(models.initial_state("lenet5", seed=0)), "config": config})


@pytest.fixture(scope="module")
def task() -> RecordDict:
    """One without a holdout."""
    return task_of({})


@pytest.fixture
def _threads_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_node_with_a_shard_says_its_number() -> None:
    assert read_holding(send("query", {"partition-id": 3}).content) == (3, 0)


def test_a_node_with_its_own_data_says_how_much(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", images=np.zeros((5, 28, 28), np.uint8), labels=np.arange(5))
    assert read_holding(send("query", {"data": str(tmp_path / "own.npz"), "partition-id": 3}).content) == (-1, 5)


@pytest.mark.parametrize(
    ("kind", "node_config", "reason"),
    [
        ("query", {}, f"{NO_SHARD}None"),
        ("query", {"partition-id": "3"}, f"{NO_SHARD}'3'"),
        ("query", {"partition-id": -1}, f"{NO_SHARD}-1"),
        ("train", {"partition-id": 0, "threads": 0}, "threads in the node config must be at least 1, got 0"),
        ("train", {"partition-id": 0}, "the task lacks 'config'"),
    ],
)
def test_what_it_cannot_do_is_an_error_of_one_line(
    kind: str, node_config: dict[str, bool | float | int | str], reason: str
) -> None:
    reply = send(kind, node_config)
    assert reply.has_error()
    assert reply.error.reason == reason


def test_a_shard_that_does_not_exist(task: RecordDict) -> None:
    reply = send("train", {"partition-id": 200}, task)
    assert reply.has_error()
    assert "shard 200" in str(reply.error.reason)


@pytest.mark.usefixtures("_threads_kept")
@pytest.mark.parametrize(("node_config", "threads"), [({}, 1), ({"threads": 2}, 2)])
def test_it_trains_with_one_thread_unless_told_otherwise(
    task: RecordDict, node_config: dict[str, int], threads: int
) -> None:
    torch.set_num_threads(2)
    reply = send("train", {"partition-id": 0, **node_config}, task)
    metrics = next(iter(reply.content.metric_records.values()))
    assert (metrics["threads"], metrics["num-examples"], metrics["shard"]) == (threads, 300, 0)


def test_what_ends_a_fit_is_no_reply(task: RecordDict) -> None:
    class Stopped(FedgeError):
        """As the link's."""

    def stop(_: float) -> None:
        raise Stopped("enough")

    token = watching.set(stop)
    try:
        with pytest.raises(Stopped, match="enough"):
            send("train", {"partition-id": 0}, task)
    finally:
        watching.reset(token)


@pytest.mark.parametrize(
    ("box", "num_examples"),
    [
        ({"max-steps": 3}, 48),  # in batches of 16
        ({"max-steps": 19}, 300),  # the last batch of an epoch has 12
        ({"max-steps": 20}, 316),
        ({"max-steps": 1000}, 600),  # two epochs: all there is
        ({"max-seconds": 1e-9}, 16),  # the step that ends beyond the box is the last
        ({"max-seconds": 1e9}, 600),
        ({}, 300),  # without a box, the shard
    ],
    ids=str,
)
def test_in_a_time_box_an_update_weighs_what_it_processed(box: dict[str, Any], num_examples: int) -> None:
    task = task_of({"training.local_epochs": 2})
    if box:
        task[OWN] = ConfigRecord(box)
    reply = send("train", {"partition-id": 0}, task)
    assert next(iter(reply.content.metric_records.values()))["num-examples"] == num_examples


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ({"max-steps": -1}, "max-steps must be a whole number of at least 0, got -1"),
        ({"max-steps": 2.0}, "max-steps must be a whole number of at least 0, got 2.0"),
        ({"max-seconds": float("nan")}, "max-seconds must be a number of at least 0, got nan"),
        ({"max-seconds": "5"}, "max-seconds must be a number of at least 0, got '5'"),
    ],
)
def test_a_box_of_no_size_is_refused(task: RecordDict, box: dict[str, Any], reason: str) -> None:
    boxed = RecordDict({**task, OWN: ConfigRecord(box)})
    assert send("train", {"partition-id": 0}, boxed).error.reason == f"the task's {reason}"


def test_what_is_held_out_is_tested_on_and_never_trained_on() -> None:
    task = task_of({"data.holdout": 0.1})
    trained = next(iter(send("train", {"partition-id": 0}, task).content.metric_records.values()))
    tested = send("evaluate", {"partition-id": 0}, task).content
    assert trained["num-examples"] == 270
    loss, accuracy, num_examples = read_evaluation(tested, 30)
    assert (num_examples, len(tested.array_records)) == (30, 0)
    assert 2.2 < loss < 2.4  # an untrained model's, ln 10
    assert accuracy * 30 == round(accuracy * 30)


def test_without_a_holdout_there_is_nothing_to_test_on(task: RecordDict) -> None:
    assert send("evaluate", {"partition-id": 0}, task).error.reason == (
        "this node holds out nothing to test on (data.holdout)"
    )


def test_own_data_is_held_out_of_too(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 255, (20, 28, 28), np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=np.arange(20) % 10)
    task, node = task_of({"data.holdout": 0.25}), {"data": str(tmp_path / "own.npz")}
    assert next(iter(send("train", node, task).content.metric_records.values()))["num-examples"] == 15
    assert read_evaluation(send("evaluate", node, task).content, 20)[2] == 5
