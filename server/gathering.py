"""Waiting for nodes, with an end, and choosing a round's cohort among them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from common.errors import Interrupted, RunFailed
from common.records import OWN_DATA
from common.streams import stream
from server.grids import Node, NodeGrid

COHORT_STREAM = -2  # in the place of a shard's number
LOOK_SECONDS = 0.5  # how often a wait without news looks at the clock


@dataclass(frozen=True)
class Waiting:
    """How far a wait has come."""

    num_nodes: int
    num_wanted: int
    shards_held: int
    seconds_left: float


def gather(
    grid: NodeGrid,
    num_wanted: int,
    wait_seconds: float,
    stop_requested: Callable[[], bool],
    show: Callable[[Waiting], None],
    admits: Callable[[Node], bool] = lambda _: True,
) -> list[Node]:
    """Wait until ``num_wanted`` nodes that ``admits`` lets in can take a task; returns all that can, in node order.

    Raises:
        RunFailed: too few came within ``wait_seconds``.
        Interrupted: a stop was requested meanwhile.
    """
    deadline = time.monotonic() + wait_seconds
    while len(nodes := [node for node in grid.nodes() if admits(node)]) < num_wanted:
        left = deadline - time.monotonic()
        if stop_requested():
            raise Interrupted(f"stopped while waiting for nodes: {len(nodes)} of {num_wanted} are here")
        if left <= 0:
            raise RunFailed(
                f"only {len(nodes)} of {num_wanted} nodes came within {wait_seconds:g} s"
                " (federation.wait_seconds); start more clients or ask for fewer with --clients"
            )
        show(Waiting(len(nodes), num_wanted, len({n.shard for n in nodes if n.shard > OWN_DATA}), left))
        grid.wait_for_change(min(left, LOOK_SECONDS))
    return nodes


def sample(nodes: Sequence[Node], fraction: float, seed: int, round_number: int) -> list[Node]:
    """Choose ``fraction`` (0..1] of the nodes, at least one, uniformly (McMahan et al. 2017, C).

    The same nodes, seed and round give the same cohort, in the order of ``nodes``.
    """
    size = max(1, round(fraction * len(nodes)))
    chosen = torch.randperm(len(nodes), generator=stream(seed, round_number, COHORT_STREAM))[:size]
    return [nodes[index] for index in sorted(chosen.tolist())]
