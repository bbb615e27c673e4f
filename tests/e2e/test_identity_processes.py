"""Rule: a node's name is held by its process and freed by the system, however the process ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client.identity import claim

HOLDER = """
import sys
from client.identity import claim
with claim(sys.argv[1] or None, 3) as identity:
    print(identity.name, identity.key, flush=True)
    sys.stdin.read()
"""
ROOT = Path(__file__).resolve().parents[2]


def start(state: Path, name: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "FEDGE_STATE_DIR": str(state)}
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, name],
        cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def hold(state: Path, name: str = "") -> tuple[subprocess.Popen[str], list[str]]:
    process = start(state, name)
    assert process.stdout is not None
    return process, process.stdout.readline().split()


def stop(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=30)[1]  # closes its input, which ends it


def test_a_killed_node_comes_back_with_its_name_and_key(tmp_path: Path) -> None:
    first, identity = hold(tmp_path)
    first.send_signal(signal.SIGKILL)
    stop(first)
    second, again = hold(tmp_path)
    stop(second)
    assert first.returncode == -signal.SIGKILL
    assert second.returncode == 0
    assert again == identity
    assert len(identity) == 2


def test_two_live_nodes_of_one_shard_have_two_names(tmp_path: Path) -> None:
    first, (name, key) = hold(tmp_path)
    second, (other_name, other_key) = hold(tmp_path)
    stop(first)
    stop(second)
    assert other_name == f"{name}-2"
    assert other_key != key


def test_a_name_held_by_another_process_is_refused(tmp_path: Path) -> None:
    first, _ = hold(tmp_path, "pi")
    second, printed = hold(tmp_path, "pi")
    complaint = stop(second)
    stop(first)
    assert printed == []
    assert second.returncode == 1
    assert "UsageError: the name pi is in use by another client on this machine" in complaint


def test_many_first_claims_at_once_all_get_names_of_their_own(tmp_path: Path) -> None:
    processes = [start(tmp_path) for _ in range(4)]
    names = {process.stdout.readline().split()[0] for process in processes if process.stdout}
    for process in processes:
        stop(process)
    assert len(names) == 4


def test_children_do_not_keep_the_name_after_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDGE_STATE_DIR", str(tmp_path))
    with claim("pi", 3):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with claim("pi", 3) as identity:
        assert identity.name == "pi"
    child.communicate(b"\n", timeout=30)
