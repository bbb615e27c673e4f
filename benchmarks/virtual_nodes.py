"""One simulated run of Fedge, ``server.rounds`` and all: on its own simulation, or on Flower's engine on Ray.

No evaluation and no disk. ``--way ray`` is ``--engine ray`` as it is; ``--way ray-as-flower`` waits for replies as
Flower's own strategies do, with ``Grid.send_and_receive``. Started by ``benchmarks.virtual_run``.
"""

import logging
from contextlib import AbstractContextManager

import torch
from flwr.serverapp import Grid

from benchmarks.simulated_task import Work
from common import models, shards
from common.records import task_config
from server import strategies
from server.engines.flower import FlowerGrid
from server.engines.ray import ray_grid
from server.gathering import Cohort, gather, sample
from server.grids import Answer, NodeGrid, Tasks, num_bytes
from server.plan import Plan
from server.rounds import rounds
from server.simulation import Simulation

PATIENCE_SECONDS = 600.0


class AsFlowerWaits(FlowerGrid):
    """Leaves the waiting to Flower."""

    def exchange(self, tasks: Tasks) -> list[Answer]:
        """One answer for each message; when each came is not known."""
        replies = self._grid.send_and_receive(tasks.messages, timeout=tasks.deadline_seconds)
        return [
            Answer(reply.metadata.src_node_id, reply, "", 0.0, num_bytes(tasks.messages[0]), num_bytes(reply))
            for reply in replies
        ]


def conduct(work: Work) -> None:
    """All rounds."""
    settings = work.settings
    state = models.initial_state(settings.model.name, settings.run.seed)
    plan = Plan(
        run="benchmark",
        strategy=strategies.build(settings.strategy),
        screen=work.screen,
        config=task_config(settings, "benchmark", tuple(shards.digest(part) for part in work.parts)),
        deadline_seconds=PATIENCE_SECONDS,
    )
    with grid_of(work) as engine:
        grid = as_nodes(engine, work.way)

        def cohort(number: int) -> Cohort:
            nodes = gather(grid, work.num_clients, PATIENCE_SECONDS, lambda: False, lambda _: None)
            return sample(nodes, settings.federation.fraction, settings.run.seed, number)

        for done in rounds(grid, plan, state, range(1, work.num_rounds + 1), cohort):
            assert done.num_nodes == work.num_asked, [report.reason for report in done.reports]
            state = done.state
            work.tell_round()
        work.tell_end(state)


def grid_of(work: Work) -> AbstractContextManager[Grid]:
    """Where the nodes live."""
    app, together = ("benchmarks.still_app:app", "") if work.is_still else ("client.app:app", "client.together")
    if work.way:
        return ray_grid(app, work.num_clients)
    return Simulation(app, work.num_clients, work.num_workers, together)


def as_nodes(engine: Grid, way: str) -> NodeGrid:
    """What the rounds are conducted on."""
    if isinstance(engine, NodeGrid):
        return engine
    return AsFlowerWaits(engine) if way == "ray-as-flower" else FlowerGrid(engine)


def main() -> None:
    """Run, and tell of each round."""
    work = Work(__doc__)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    conduct(work)
