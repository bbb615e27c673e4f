"""Rule: a server and two clients train a model, leave everything the contract names, and equal the simulation."""

import json
from pathlib import Path

import torch

from common import mnist, models
from common.preprocessing import Preprocessing
from common.training import evaluate
from tests.e2e.processes import Federation, Process
from tests.e2e.runs import assert_same_learning, json_lines, points_of, state_of, verdicts_of

ON_THE_TEST_SET = ["round", "test_loss", "test_accuracy", "class_accuracy"]
METRICS = [
    *(*ON_THE_TEST_SET, "train_loss", "num_nodes", "num_rejected", "num_clipped", "num_expired", "num_late"),
    "share_of_data",
    *(
        "seconds",
        "fit_seconds",
        "overhead_seconds",
        "median_fit_seconds",
        "broadcast_seconds",
        "upload_seconds",
        "wait_seconds",
    ),
    *(
        "average_seconds",
        "evaluate_seconds",
        "write_seconds",
        "bytes_down",
        "bytes_up",
        "node_accuracy_mean",
        "node_accuracy_worst",
        "best",
    ),
]
LEDGER = [
    *("task", "round", "judged", "node", "shard", "examples", "sha256", "verdict", "reason"),
    *("seconds", "bytes", "threads"),
]
TESTED = {"test/loss", "test/accuracy", *(f"test/class_accuracy/{digit}" for digit in range(10))}
TAGS = TESTED | {
    *("train/loss", "round/seconds", "round/overhead_seconds", "round/nodes"),
    *(f"round/{phase}_seconds" for phase in ("broadcast", "train", "train_median", "upload")),
    *(f"round/{phase}_seconds" for phase in ("wait", "average", "evaluate", "write")),
    *("round/rejected", "round/clipped", "round/late", "link/bytes_up", "link/bytes_down", "best/accuracy"),
    *(f"node/{node}/{value}" for node in "ab" for value in ("train_loss", "examples", "seconds", "update_norm")),
}
IMPORTED = "import time:"  # how a line of Python's own list of imports begins
NOT_ON_A_NODE = {"server", "torchvision", "tensorboard", "flwr.cli", "PIL", "torch._dynamo", "sympy", "ray"}
FILES = {
    *("settings.yaml", "metrics.jsonl", "ledger.jsonl", "best.pt", "best.json", "last.pt", "last.prev.pt"),
    *("run.log", "tensorboard"),
}


def test_a_run_over_sockets(federation: Federation, simulated: Path) -> None:
    server = federation.serve()
    a = federation.client(server, "--shard", "0", "--name", "a", "--once", environment={"PYTHONPROFILEIMPORTTIME": "1"})
    nodes = (a, federation.client(server, "--shard", "1", "--name", "b", "--once"))

    codes = [server.exit_code(), *(node.exit_code() for node in nodes)]

    assert codes == [0, 0, 0], [server, *nodes]
    run = server.run_dir
    assert_the_story(server.events)
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == FILES
    assert_records(run)
    assert_best(run)
    assert_same_learning(run, simulated)
    assert_imports_little(a)
    for node in nodes:
        assert [line for line in node.err if not line.startswith(IMPORTED)] == []
        assert [line for line in node.out if "the server says: the run is done, best accuracy " in line], node


def assert_imports_little(node: Process) -> None:
    """A node whose data is unpacked loads nothing that only a server or a first start needs."""
    imported = {line.rpartition("|")[2].strip() for line in node.err if line.startswith(IMPORTED)}
    assert {"torch", "grpc", "client.app"} <= imported
    unwanted = {name for name in imported if name.startswith(tuple(f"{package}." for package in NOT_ON_A_NODE))}
    assert unwanted | imported & NOT_ON_A_NODE == set()


def assert_the_story(events: list[dict[str, object]]) -> None:
    kinds = [event["event"] for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert [event["round"] for event in events if event["event"] == "round_done"] == [0, 1, 2, 3, 4]


def assert_records(run: Path) -> None:
    first, *rows = json_lines(run / "metrics.jsonl")
    assert list(first) == [*ON_THE_TEST_SET, "best"]
    assert [list(row) for row in rows] == [METRICS] * 4
    # 300 of 60,000 images on each of two nodes
    assert [(row["num_nodes"], row["share_of_data"]) for row in rows] == [(2, 0.01)] * 4
    ledger = json_lines(run / "ledger.jsonl")
    assert [list(line) for line in ledger] == [LEDGER] * 8
    assert verdicts_of(run) == [(number, node, "accepted") for number in (1, 2, 3, 4) for node in "ab"]
    assert {(line["node"], line["shard"], line["examples"], line["threads"]) for line in ledger} == {
        ("a", 0, 300, 1),
        ("b", 1, 300, 1),
    }
    steps = points_of(run)
    assert set(steps) == TAGS
    assert {tag: found for tag, found in steps.items() if found != [1, 2, 3, 4]} == {
        "best/accuracy": [4],
        **{tag: [0, 1, 2, 3, 4] for tag in TESTED},
    }
    assert "drawn in" in (run / "run.log").read_text()


def assert_best(run: Path) -> None:
    facts = json.loads((run / "best.json").read_text())
    assert set(facts) == {"round", "accuracy", "loss", "sha256", "model", "preprocessing"}
    model = models.LeNet5()
    model.load_state_dict(state_of(run / "best.pt"))
    torch.set_num_threads(1)
    test = mnist.load("test")
    found = evaluate(model, test.images, test.labels, Preprocessing.from_description(facts["preprocessing"]).prepare)
    assert (found.accuracy, found.loss) == (facts["accuracy"], facts["loss"])
    best = json_lines(run / "metrics.jsonl")[facts["round"]]
    assert (best["test_accuracy"], best["test_loss"], best["best"]) == (found.accuracy, found.loss, True)
