"""A thousand rounds against their deadline, and by how much they overran it: ``python -m tests.faults.deadlines``."""

import argparse
import logging
import tempfile
from pathlib import Path

from tests.faults.certificates import enrolled
from tests.faults.network import table
from tests.faults.network_faults import JumpingClock, draw_late
from tests.faults.network_runs import keep_books

MAX_OVERRUN_SECONDS = 1.0


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
    print(f"| Rounds | {len(overruns)} |", *table([books])[1:], sep="\n")
    for share in (0.5, 0.9, 0.99):
        print(f"| Overrun, p{100 * share:g} | {overruns[int(share * len(overruns))]:.3f} s |")
    return int(bool(books.problems) or overruns[-1] > MAX_OVERRUN_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
