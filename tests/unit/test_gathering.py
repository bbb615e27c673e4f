"""Rule: a wait ends with enough nodes, with a sentence when time is up, or when someone asks to stop."""

from collections import Counter

import pytest

from common.errors import Interrupted, RunFailed
from server.gathering import Waiting, gather, sample
from server.grids import Node
from tests.scripted_grid import NODES, ScriptedGrid

OWN = Node(9, "own", -1, own_examples=50)


class ArrivingGrid(ScriptedGrid):
    """Nodes that come one after another, one with every wait."""

    def __init__(self, *arrivals: Node) -> None:
        super().__init__({})
        self.arrivals = list(arrivals)

    def wait_for_change(self, seconds: float) -> None:
        super().wait_for_change(seconds)
        if self.arrivals:
            self.scripts[self.arrivals.pop(0)] = lambda _: "never asked"


def test_nodes_that_are_here_are_taken_at_once_all_of_them() -> None:
    grid = ScriptedGrid({node: lambda _: "" for node in (NODES[2], NODES[0], NODES[1])})
    seen: list[Waiting] = []
    assert gather(grid, 2, 60.0, lambda: False, seen.append) == list(NODES[:3])
    assert (seen, grid.tape) == ([], [])


def test_a_wait_says_how_far_it_has_come() -> None:
    grid = ArrivingGrid(NODES[1], OWN, NODES[3])
    seen: list[Waiting] = []
    assert gather(grid, 3, 60.0, lambda: False, seen.append) == [OWN, NODES[1], NODES[3]]
    assert [(waiting.num_nodes, waiting.num_wanted, waiting.shards_held) for waiting in seen] == [
        (0, 3, 0),
        (1, 3, 1),
        (2, 3, 1),  # own data is no shard
    ]
    assert all(0 < waiting.seconds_left <= 60 for waiting in seen)
    assert grid.tape == ["wait 0.5 s"] * 3


def test_too_few_nodes_end_the_run_with_a_sentence() -> None:
    with pytest.raises(RunFailed) as error:
        gather(ArrivingGrid(NODES[0]), 2, 0.01, lambda: False, lambda _: None)
    assert str(error.value) == (
        "only 1 of 2 nodes came within 0.01 s (federation.wait_seconds), here: node-0;"
        " start more clients or ask for fewer with --clients"
    )


class HangingGrid(ScriptedGrid):
    """Seven nodes that can take a task, and one that hangs in a cancelled one."""

    def __init__(self) -> None:
        super().__init__({Node(number + 1, f"n{number}", number): lambda _: "" for number in range(7)})

    def busy(self) -> list[Node]:
        return [Node(9, "attic", 8)]


def test_a_wait_says_who_is_here_and_does_not_do() -> None:
    seen: list[Waiting] = []
    with pytest.raises(RunFailed) as error:
        gather(HangingGrid(), 7, 0.01, lambda: False, seen.append, lambda node: node.shard > 0, "federation.min_nodes")
    assert str(error.value) == (
        "only 6 of 7 nodes came within 0.01 s (federation.wait_seconds), here: n1 n2 n3 n4 n5 …, busy with a former"
        " task: attic, set aside: n0; start more clients or ask for fewer with federation.min_nodes"
    )
    assert {(waiting.num_nodes, waiting.num_busy, waiting.num_aside) for waiting in seen} == {(6, 1, 1)}


def test_nobody_asks_for_fewer_than_one() -> None:
    with pytest.raises(RunFailed, match=r"only 0 of 1 nodes came within 0.01 s \(.*\); start more clients$"):
        gather(ArrivingGrid(), 1, 0.01, lambda: False, lambda _: None)


def test_a_stop_ends_the_wait() -> None:
    with pytest.raises(Interrupted, match="stopped while waiting for nodes: 0 of 2 are here"):
        gather(ArrivingGrid(), 2, 60.0, lambda: True, lambda _: None)


def test_a_stop_does_not_end_what_need_not_wait() -> None:
    grid = ScriptedGrid({NODES[0]: lambda _: ""})
    assert gather(grid, 1, 60.0, lambda: True, lambda _: None) == [NODES[0]]


@pytest.mark.parametrize(
    ("fraction", "size"), [(1.0, 10), (0.5, 5), (0.1, 1), (0.01, 1), (0.25, 2), (0.34, 3), (0.99, 10)]
)
def test_a_cohort_is_the_fraction_of_the_nodes_and_one_at_least(fraction: float, size: int) -> None:
    nodes = [Node(number + 1, f"n{number}", number) for number in range(10)]
    cohort = sample(nodes, fraction, seed=1, round_number=1).nodes
    assert len(cohort) == size
    assert cohort == sorted(set(cohort), key=lambda node: node.order)


def test_a_cohort_depends_on_seed_and_round_alone() -> None:
    nodes = [Node(number + 1, f"n{number}", number) for number in range(20)]
    assert sample(nodes, 0.5, 1, 1) == sample(nodes, 0.5, 1, 1)
    assert len({tuple(sample(nodes, 0.5, seed, number).nodes) for seed in (1, 2) for number in (1, 2)}) == 4


def test_every_node_is_chosen_about_equally_often() -> None:
    """Of 400 draws of 2 of 4 each node has an even chance: 200, give or take five standard deviations of 10."""
    counts = Counter(node.name for number in range(400) for node in sample(NODES, 0.5, 1, number).nodes)
    assert sum(counts.values()) == 800
    assert all(150 <= counts[node.name] <= 250 for node in NODES)
