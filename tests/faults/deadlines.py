"""A thousand rounds against their deadline, and by how much they overran it: ``python -m tests.faults.deadlines``."""

import argparse
import logging
import os
import tempfile
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else every handshake that a fault cut is a line

from tests.faults import results
from tests.faults.certificates import enrolled
from tests.faults.network import kinds
from tests.faults.network_faults import JumpingClock, draw_late
from tests.faults.network_runs import keep_books
from tests.faults.outcome import table

MAX_OVERRUN_SECONDS = 1.0
FAMILY = "rounds against their deadline"


def main() -> int:
    """One run of ``--rounds``; 1 if a round overran by more than a second, or a task has not just one verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--deadline", type=float, default=0.3, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    schedule = draw_late(asked.seed, asked.rounds, asked.nodes, asked.deadline)
    names = [f"n{shard}" for shard in range(asked.nodes)]
    with (
        tempfile.TemporaryDirectory() as folder,
        enrolled(Path(folder) / "state", names) as control,
        JumpingClock() as clock,
    ):
        books = keep_books(schedule, Path(folder), clock, control)
    for problem in books.problems:
        print(problem)
    overruns = sorted(books.overruns)
    shares = ", ".join(f"p{100 * share:g} {overruns[int(share * len(overruns))]:.3f}" for share in (0.5, 0.9, 0.99))
    longest = f"{overruns[-1]:.3f} s ({shares})"
    print(table({FAMILY: [books.outcome]}), kinds([books]), f"longest overrun {longest}", sep="\n")
    results.keep(FAMILY, books.outcome)
    results.keep_figure(f"Longest overrun in {len(overruns):,} rounds of {asked.deadline:g} s", longest)
    return int(bool(books.problems) or overruns[-1] > MAX_OVERRUN_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
