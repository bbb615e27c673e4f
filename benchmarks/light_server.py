"""A server whose rounds are not evaluated or saved: link with TLS, cohort, screen, average, verdicts.

Prints its port, then one JSON object a round, then one with its peak memory.

    python -m benchmarks.light_server --nodes 2 --rounds 30
"""

import argparse
import json
import os
import resource
import time
from dataclasses import asdict

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import logging

from common import models
from common.layers import load
from common.records import task_config
from common.settings import Settings
from server import strategies
from server.admission.passport import Control
from server.fleet import Fleet
from server.gathering import Cohort, gather
from server.grids import Verdict
from server.heap import collect_less_often, keep_freed_memory, share_one_heap
from server.link.roster import Roster, node_id
from server.plan import Plan
from server.report import Round
from server.rounds import rounds
from server.updates.screening import Screen


class Nobody:
    """Hears what happens on the link."""

    def joined(self, node: str, shard: int, address: str) -> None:
        """Nothing."""

    def left(self, node: str, reason: str) -> None:
        """Nothing."""

    def progress(self, node: str, fraction: float) -> None:
        """Nothing."""

    def delivered(self, node: str) -> None:
        """Nothing."""

    def notice(self, text: str) -> None:
        """Nothing."""


def serve(settings: Settings, num_nodes: int, num_rounds: int) -> None:
    """Rounds with all of ``num_nodes`` nodes."""
    state = models.initial_state("lenet5", seed=0)
    size = sum(value.numel() * value.element_size() for value in state.values())
    plan = Plan(
        run="light",
        strategy=strategies.build(settings.strategy),
        screen=Screen([1] * num_nodes, 1, settings.strategy.max_norm_ratio),
        config=task_config(settings, "light", ("0" * 64,) * num_nodes),
        deadline_seconds=60.0,
    )
    with Fleet(settings, Roster(num_nodes, 1), size, Nobody(), Control.open()) as fleet:
        print(fleet.port, flush=True)

        def everybody(number: int) -> Cohort:
            del number
            nodes = gather(fleet, num_nodes, 300.0, lambda: False, lambda _: None)
            return Cohort(nodes, len(nodes))

        cpu = time.process_time()
        for done in rounds(fleet, plan, state, range(1, num_rounds + 1), everybody):
            fleet.settle(Verdict(node_id(r.node), r.task, r.verdict, r.reason) for r in done.reports)
            print(json.dumps(figures(done) | {"cpu": time.process_time() - cpu}), flush=True)
            cpu = time.process_time()
        print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}), flush=True)
        fleet.say_farewell("the benchmark is done", run_done=True)


def figures(done: Round) -> dict[str, float]:
    """Of one round; times in seconds."""
    phases = {name: seconds for name, seconds in asdict(done.phases).items() if seconds == seconds}
    return {"accepted": done.num_nodes, "seconds": done.seconds, "bytes_down": done.bytes_down} | phases


def main() -> None:
    """Serve on a free port of loopback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--nodes", "--rounds"):
        parser.add_argument(flag, type=int, required=True)
    asked = parser.parse_args()
    share_one_heap()
    keep_freed_memory()
    collect_less_often()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    settings = {"link.host": "127.0.0.1", "link.port": 0, "data.num_shards": asked.nodes}
    settings |= {"federation.clients": asked.nodes, "link.silence_seconds": 60}
    settings |= {"link.beat_seconds": 10}  # a thousand idle nodes must leave the cores to a round
    serve(load(("the benchmark", settings)), asked.nodes, asked.rounds)


if __name__ == "__main__":
    main()
