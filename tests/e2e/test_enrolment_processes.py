"""Rule: on another machine (here: another state folder) a node joins with a token once, until it is revoked."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.processes import LONG, PATIENCE_SECONDS, ROOT, Federation

CUT_OFF_WITHIN_SECONDS = 5.0


@pytest.fixture
def pi(tmp_path: Path, state_folder: Path) -> dict[str, str]:
    """The environment on another machine, whose MNIST is unpacked already."""
    folder = tmp_path / "pi-state"
    folder.mkdir(mode=0o700)
    (folder / "cache").symlink_to(state_folder / "cache")
    return {"FEDGE_STATE_DIR": str(folder)}


def server_says(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_a_node_joins_with_a_token_once_and_is_cut_off_when_revoked(federation: Federation, pi: dict[str, str]) -> None:
    server = federation.serve("--clients", "1", settings=LONG)
    stranger = federation.client(server, "--shard", "0", "--name", "a", environment=pi)
    assert stranger.exit_code() == 2, stranger
    assert stranger.err == [
        f"python -m client: node a is not enrolled with the server at 127.0.0.1:{server.port}: give it a join token"
        " once with --token or FEDGE_TOKEN; on the server's machine, python -m server token prints one"
    ]

    command = server_says("token")[-1]
    given = re.fullmatch(r"python -m client --shard auto --token (fedge1\.\S+)", command)
    assert given, command
    first = federation.client(server, "--shard", "0", "--name", "a", "--token", given[1], environment=pi)
    first.wait_line("enrolled as a with the server at ")
    server.wait_event("joined", node="a")
    first.kill()
    left = server.wait_event("left", node="a")

    again = federation.client(server, "--shard", "0", "--name", "a", environment=pi)
    server.wait_event("joined", since=server.after(left), node="a")
    assert [re.sub("  enrolled .*", "", line) for line in server_says("nodes")] == ["a"]

    revoked_at, mark = time.monotonic(), len(server.events)
    assert server_says("revoke", "a")[0] == "a is revoked: a server that runs shuts it out within 5 s"
    server.wait_event("left", since=mark, reason="node a was revoked: its operator knows why")
    assert time.monotonic() - revoked_at < CUT_OFF_WITHIN_SECONDS + PATIENCE_SECONDS / 10  # the subcommand starts too
    again.kill()
    revoked = federation.client(server, "--shard", "0", "--name", "a", environment=pi)
    assert revoked.exit_code() == 2, revoked
    assert revoked.err == ["python -m client: the server refuses this node: node a was revoked: its operator knows why"]

    token = str(server.wait_event("started")["token"])
    assert token.startswith("fedge1.")
    kept = [path.read_bytes() for path in server.run_dir.rglob("*") if path.is_file()]
    assert not [content for content in kept if token.rpartition(".")[2].encode() in content]


def test_plaintext_needs_the_word_of_both_sides(federation: Federation) -> None:
    server = federation.serve("--insecure", "--clients", "1", rounds=1)
    assert "plaintext" in server.wait_event("notice")["text"]
    careful = federation.client(server, "--shard", "0", "--name", "a")
    careful.wait_line("does not speak TLS: if the server runs with --insecure, this node must too; trying again$")
    careful.kill()

    node = federation.client(server, "--shard", "0", "--name", "a", "--once", "--insecure")

    assert [server.exit_code(), node.exit_code()] == [0, 0], (server, node)
    assert "the link is plaintext" in node.out[0]
