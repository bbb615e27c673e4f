"""Rule: the simulation's benchmark counts rounds from the second on, and compares what did the same work."""

from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.bare_loop import averaged, flat, load
from benchmarks.peer_screen import PeerScreen
from benchmarks.simulation import Bench, Turn, check_weights, ratios, table, whole
from benchmarks.still_app import move
from common import models
from server.updates.screening import Rejected, Screen


def turn(*ended: float, sha256: str = "a") -> Turn:
    return Turn(list(ended), sha256, [])


def row(arm: str, seconds: float, **more: object) -> dict[str, object]:
    return {"arm": arm, "median": seconds, "min": seconds / 2, "first": 3.0, "all": 3.0 + seconds, "turns": []} | more


def test_the_first_round_counts_as_starting_up() -> None:
    turns = [turn(5.0, 6.0, 8.0, 9.0), turn(4.0, 6.0, 8.0, 11.0)]
    assert [each.rounds for each in turns] == [[1.0, 2.0, 1.0], [2.0, 2.0, 3.0]]
    assert whole(turns) == {"first": 4.5, "all": 10.0}


def test_what_is_not_the_same_model_is_no_comparison() -> None:
    same = {"fedge": [turn(sha256="a")], "bare, 2 processes": [turn(sha256="a")]}
    check_weights(same | {"pfl": [turn(sha256="b")]})  # its own cohorts and sums
    with pytest.raises(AssertionError, match="different models"):
        check_weights(same | {"ray": [turn(sha256="b")]})


def test_ratios_are_those_of_the_arms_that_were_measured() -> None:
    seconds = {"fedge": 1.0, "fedge, 2 workers": 0.5, "ray": 4.0, "blazefl": 1.5, "pfl": 3.0, "pfl, screened": 5.0}
    rows = [row(arm, each) for arm, each in seconds.items()]
    assert ratios(rows) == {
        "ray : fedge, 2 workers (median)": 8.0,  # the quicker of Fedge's two
        "ray : fedge, 2 workers (min)": 8.0,
        "ray : fedge, 2 workers (all)": 2.0,  # 7 : 3.5
        "blazefl : fedge, 2 workers (median)": 3.0,  # the quickest peer as it is
        "pfl, screened : fedge, 2 workers (median)": 10.0,  # and the quickest of those that check what comes
        "fedge : fedge, 2 workers (median)": 2.0,
        "fedge : fedge, 2 workers (min)": 2.0,
    }
    assert ratios(rows[2:]) == {}


def test_the_table_marks_what_broke_a_rule() -> None:
    measured = {"turns": [2.0, 2.5], "steady": False, "credible": True}
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table("still", [row("fedge", 2.0, **measured), row("ray", 4.0)]))
    ours, ray = [line.split("│")[1:7] for line in captured.get().splitlines() if "fedge" in line or "ray" in line]
    assert [cell.strip() for cell in ours] == ["fedge", "2.0000", "1.0000", "3.0", "5.0", "2.0000 2.5000 unsteady"]
    assert [cell.strip() for cell in ray] == ["ray", "4.0000", "2.0000", "3.0", "7.0", ""]


def test_a_peer_that_is_not_there_is_missed(tmp_path: Path) -> None:
    assert not Bench(tmp_path, "").missing("fedge, 2 workers")
    (tmp_path / "pfl").mkdir()
    (tmp_path / "pfl" / "__init__.py").touch()
    assert not Bench(tmp_path, str(tmp_path)).missing("pfl, 2 processes")


def test_a_peers_updates_pass_the_same_checks() -> None:
    screen, state = PeerScreen(Screen([1, 1, 1], 1, 0.0)), models.initial_state("lenet5", 1)
    one, other = flat(state) + np.float32(1), flat(state) + np.float32(2)
    screen.begin(state)
    screen.take(0, one, 1)
    with pytest.raises(Rejected, match="2 examples, expected 1 to 1"):
        screen.take(1, other, 2)
    with pytest.raises(Rejected, match="not finite"):
        screen.take(1, other * np.float32(np.nan), 1)
    screen.take(1, one, 1)
    with pytest.raises(AssertionError, match="the same update as that of node peer-0"):
        screen.end()


def test_a_peers_update_of_a_former_round_is_known() -> None:
    screen, state = PeerScreen(Screen([1, 1, 1], 1, 0.0)), models.initial_state("lenet5", 1)
    one = flat(state) + np.float32(1)
    screen.begin(state)
    screen.take(0, one, 1)
    screen.end()
    state["fc3.bias"] += 1  # a peer trains in place: what the round began with is another matter
    screen.begin(state)
    screen.take(0, one, 1)
    with pytest.raises(AssertionError, match="stale"):
        screen.end()


def test_the_bare_loop_takes_the_mean_by_examples_in_the_order_of_clients() -> None:
    pairs = [Pipe() for _ in range(2)]
    for client, value in enumerate([1.0, 2.0, 4.0]):
        pairs[client % 2][1].send_bytes(np.full(2, value, np.float32).data)
    assert averaged([ours for ours, _ in pairs], [100, 100, 200]).tolist() == [2.75, 2.75]


def test_weights_go_into_one_buffer_and_back() -> None:
    state, model = models.initial_state("lenet5", 1), models.build("lenet5")
    load(model, flat(state))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    first, second = models.copy_state(model), models.copy_state(model)
    move(first, 3)
    move(second, 4)
    assert not torch.equal(first["fc3.bias"], second["fc3.bias"])
