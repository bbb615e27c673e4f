"""Rule: a run on Ray learns what the simulation learns, and leaves nothing behind, nodes that hang included."""

from pathlib import Path

import psutil

from tests.e2e.processes import LONG, TINY, Federation, Server, as_flags
from tests.e2e.runs import json_lines, learned, state_of


def assert_nothing_left(server: Server, own_state: Path) -> None:
    """Whoever it started has its environment, and so the state folder of this test."""
    assert list(Path("/tmp").glob(f"fedge-ray-{server.pid}-*")) == []
    assert [process for process in psutil.process_iter() if state_of_process(process) == str(own_state)] == []


def state_of_process(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("FEDGE_STATE_DIR")
    except psutil.Error:
        return None  # it has just ended


def on_ray(federation: Federation, *arguments: str) -> Server:
    return federation.server("--engine", "ray", "--simulate", "2", "--rounds", "2", "--name", "ray", *arguments)


def test_two_rounds_equal_the_simulation_bit_for_bit(federation: Federation, simulated: Path, own_state: Path) -> None:
    server = on_ray(federation, *as_flags(TINY))
    assert server.exit_code() == 0, server
    assert_nothing_left(server, own_state)
    run = federation.out / "ray"
    assert learned(run, 2) == learned(simulated, 2)
    assert [line["node"] for line in json_lines(run / "ledger.jsonl")] == ["shard-0", "shard-1"] * 2
    assert sum(value.numel() for value in state_of(run / "best.pt").values()) == 61_706
    assert server.err == []


def test_nodes_that_hang_expire_and_the_server_ends(federation: Federation, own_state: Path) -> None:
    late = ("federation.round_deadline_seconds=2", "federation.max_failed_rounds=1")
    server = on_ray(federation, *as_flags((*TINY, *LONG, *late)))
    assert server.exit_code() == 1, server
    assert_nothing_left(server, own_state)
    assert server.err == [
        "Error: 1 rounds in a row had no usable update (shard-0: no update within 2 s; shard-1: no update within 2 s);"
        f" all that was learned is in {federation.out / 'ray'}"
    ]
