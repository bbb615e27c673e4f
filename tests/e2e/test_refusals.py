"""Rule: what cannot be done is said in one or two lines, with the exit code of its kind, and nothing is lost."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import PATIENCE_SECONDS, ROOT, TINY, Federation, as_flags
from tests.e2e.runs import json_lines, rounds_of, verdicts_of

USAGE = {
    "server --rounds x": "python -m server: argument --rounds: invalid int value: 'x' (try --help)",
    "server --config nope.yaml": "python -m server: cannot read settings file nope.yaml: No such file or directory",
    "server --set training.learning_rate=-0.1": (
        "Error: training.learning_rate must be greater than 0, got -0.1 (from --set)"
    ),
    "client --shard three": (
        "python -m client: argument --shard: a shard is a number from 0, or auto, got 'three' (try --help)"
    ),
    "client --server host:99999": "python -m client: --server must end in a port from 1 to 65535, got 'host:99999'",
    "client --config nope.yaml": "python -m client: cannot read settings file nope.yaml: No such file or directory",
}


@pytest.mark.parametrize("command", USAGE)
def test_bad_usage_is_one_line_and_exit_code_2(command: str, own_state: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (2, "", [USAGE[command]])
    del own_state


def test_a_second_server_gets_neither_port_nor_directory_of_the_first(federation: Federation) -> None:
    first = federation.serve("--name", "first")
    run, port = first.run_dir, str(first.port)
    here = ("--host", "127.0.0.1", *as_flags(TINY))
    others = {
        "port": federation.server(*here, "--port", port, "--name", "second"),
        "name": federation.server(*here, "--port", "0", "--name", "first"),
        "run": federation.server("--port", "0", "--resume", str(run)),
        "settings": federation.server("--port", "0", "--resume", str(run), "--seed", "43"),
    }
    assert [other.exit_code() for other in others.values()] == [2, 2, 2, 2]
    in_use = f"Error: run directory {run} is in use by another server; stop that one first or start a new run"
    assert {what: other.err for what, other in others.items()} == {
        "port": [
            f"Error: cannot listen on 127.0.0.1:{port}: the port is taken or the address is not this machine's;"
            " choose another with --port or --host"
        ],
        "name": [f"Error: run directory {run} exists and is never overwritten; choose another --name, or --resume it"],
        "run": [in_use],
        "settings": [in_use],
    }
    assert list(federation.out.iterdir()) == [run]

    first.wait_event("waiting")  # it may have to unpack the data first
    first.send(signal.SIGINT)
    assert first.exit_code() == 130, first
    hint = f"continue with: python -m server --resume {run}"
    assert first.err == [f"Interrupted: stopped while waiting for nodes: 0 of 2 are here; {hint}"]
    assert rounds_of(run) == [0]
    others = {
        "settings": federation.server("--port", "0", "--resume", str(run), "--seed", "43"),
        "nothing": federation.server("--port", "0", "--out", str(run), "--resume"),
        "no run": federation.server("--port", "0", "--resume", str(federation.out)),
    }
    assert [other.exit_code() for other in others.values()] == [2, 2, 2]
    assert {what: other.err for what, other in others.items()} == {
        "settings": ["Error: run.seed must stay 42 in a resumed run, got 43; leave it out or start a new run"],
        "nothing": [f"Error: nothing to resume: {run} holds no run; start one without --resume, or name its directory"],
        "no run": [f"Error: nothing to resume: {federation.out} is not a run directory (no settings.yaml in it)"],
    }
    assert rounds_of(run) == [0]


def test_too_few_nodes_end_the_run(federation: Federation) -> None:
    server = federation.serve("--clients", "3", settings=["federation.wait_seconds=2"])

    assert server.exit_code() == 1, server
    assert server.err == [
        "Error: only 0 of 3 nodes came within 2 s (federation.wait_seconds);"
        " start more clients or ask for fewer with --clients"
    ]
    assert rounds_of(server.run_dir) == [0]


def test_three_rounds_without_a_usable_update_end_the_run(federation: Federation) -> None:
    server = federation.serve("--clients", "1", settings=["training.learning_rate=1e30"])  # diverges at once
    client = federation.client(server, "--shard", "0", "--name", "a", "--once")

    assert [server.exit_code(), client.exit_code()] == [1, 1], (server, client)
    run = server.run_dir
    (ending,) = server.err
    assert ending.startswith("Error: 3 rounds in a row had no usable update (a: ")
    assert ending.endswith(f"); all that was learned is in {run}")
    assert verdicts_of(run) == [(1, "a", "rejected"), (2, "a", "rejected"), (3, "a", "rejected")]
    untrained, *rounds = json_lines(run / "metrics.jsonl")
    figures = ("test_loss", "test_accuracy")
    assert [[row[key] for key in figures] for row in rounds] == [[untrained[key] for key in figures]] * 3
    (complaint,) = client.err
    assert complaint.startswith("python -m client: the run ended before it was done: the run ended: 3 rounds in a row")


def test_damaged_data_is_named_and_nothing_is_begun(federation: Federation, tmp_path: Path) -> None:
    bundle = tmp_path / "data" / "mnist"
    bundle.mkdir(parents=True)
    for packed in (ROOT / "data" / "mnist").glob("*.gz"):
        (bundle / packed.name).symlink_to(packed)
    damaged = bundle / "train-images-idx3-ubyte.gz"
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:1_000_000])
    fresh = [{"FEDGE_DATA_DIR": str(tmp_path / "data"), "FEDGE_STATE_DIR": str(tmp_path / str(i))} for i in range(2)]

    server = federation.server("--host", "127.0.0.1", "--port", "0", *as_flags(TINY), environment=fresh[0])
    client = federation.client("127.0.0.1:1", "--shard", "0", environment=fresh[1])

    assert [server.exit_code(), client.exit_code()] == [2, 2], (server, client)
    problem = (
        f"{damaged} is damaged: Compressed file ended before the end-of-stream marker was reached;"
        " restore it (git checkout -- data/mnist), or delete it to have MNIST downloaded"
    )
    assert server.err == [f"Error: {problem}"]
    assert client.err == [f"python -m client: {problem}"]
    assert list(federation.out.iterdir()) == []


def test_a_reader_that_goes_away_does_not_end_the_run(federation: Federation) -> None:
    federation.out.mkdir()
    flags = ["--quiet", "--out", str(federation.out), "--name", "run", "--rounds", "1", "--simulate", "1"]
    server = shlex.join([sys.executable, "-m", "server", *flags, *as_flags(TINY)])

    script = f"{server} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Run run: lenet5, 1 round, simulated in this process\n"
    assert rounds_of(federation.out / "run") == [0, 1]
