"""Waiting for nodes, with an end, and choosing a round's cohort among them."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from common.errors import Interrupted, RunFailed
from common.records import OWN_DATA
from common.streams import stream
from server.grids import Node, NodeGrid

COHORT_STREAM = -2  # in the place of a shard's number
MOST_NAMED = 5  # nodes, where a wait was in vain
LOOK_SECONDS = 0.5  # how often a wait without news looks at the clock


@dataclass(frozen=True)
class Waiting:
    """How far a wait has come."""

    num_nodes: int
    num_wanted: int
    shards_held: int
    seconds_left: float
    num_busy: int = 0  # others that are here and still at work on the task of a former round
    num_aside: int = 0  # others that are here and set aside


def gather(
    grid: NodeGrid,
    num_wanted: int,
    wait_seconds: float,
    stop_requested: Callable[[], bool],
    show: Callable[[Waiting], None],
    admits: Callable[[Node], bool] = lambda _: True,
    wanted_by: str = "--clients",
) -> list[Node]:
    """Wait until ``num_wanted`` nodes that ``admits`` lets in can take a task; returns all that can, in node order.

    ``wanted_by`` is what a person changes to ask for fewer.

    Raises:
        RunFailed: too few came within ``wait_seconds``; the text says who is here, and why that does not do.
        Interrupted: a stop was requested meanwhile.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        here = grid.nodes()
        nodes = [node for node in here if admits(node)]
        if len(nodes) >= num_wanted:
            return nodes
        left = deadline - time.monotonic()
        if stop_requested():
            raise Interrupted(f"stopped while waiting for nodes: {len(nodes)} of {num_wanted} are here")
        busy, aside = grid.busy(), [node for node in here if not admits(node)]
        if left <= 0:
            raise RunFailed(
                f"only {len(nodes)} of {num_wanted} nodes came within {wait_seconds:g} s (federation.wait_seconds)"
                f"{_named('here', nodes)}{_named('busy with a former task', busy)}{_named('set aside', aside)};"
                f" start more clients{f' or ask for fewer with {wanted_by}' if num_wanted > 1 else ''}"
            )
        shards_held = len({node.shard for node in nodes if node.shard > OWN_DATA})
        show(Waiting(len(nodes), num_wanted, shards_held, left, len(busy), len(aside)))
        grid.wait_for_change(min(left, LOOK_SECONDS))


def _named(what: str, nodes: Sequence[Node]) -> str:
    """``, WHAT: NAME, NAME`` of the first few, nothing without any."""
    names = [node.name for node in nodes[:MOST_NAMED]] + ["…"] * (len(nodes) > MOST_NAMED)
    return f", {what}: {' '.join(names)}" if names else ""


@dataclass(frozen=True)
class Cohort:
    """Who is asked in a round, and how many answers it is about."""

    nodes: Sequence[Node]
    num_wanted: int  # updates; more nodes than that are asked where the first ones count
    reserve: Sequence[Node] = ()  # who may take the place of a node that vanishes, in this order


def sample(nodes: Sequence[Node], fraction: float, seed: int, round_number: int, over_selection: float = 0.0) -> Cohort:
    """Choose ``fraction`` (0..1] of the nodes, at least one, uniformly (McMahan et al. 2017, C).

    The same nodes, seed and round give the same cohort, in the order of ``nodes``. ``over_selection`` asks that share
    more of them, as many as there are (Bonawitz et al. 2019, 3.3: 1.3 times the number wanted).
    """
    num_wanted = max(1, round(fraction * len(nodes)))
    num_asked = num_wanted + math.ceil(round(over_selection * num_wanted, 6))  # 0.1 of 30 is 3, in floats as well
    drawn = torch.randperm(len(nodes), generator=stream(seed, round_number, COHORT_STREAM)).tolist()
    asked = [nodes[index] for index in sorted(drawn[:num_asked])]
    return Cohort(asked, num_wanted, [nodes[index] for index in drawn[num_asked:]])
