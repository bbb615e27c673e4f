"""Many schedules of network faults, several at once, and what they came to: ``python -m tests.faults.network``."""

import argparse
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else every handshake that a fault cut is a line

from tests.faults import results
from tests.faults.certificates import enrolled
from tests.faults.network_faults import JumpingClock, draw
from tests.faults.network_runs import Books, keep_books
from tests.faults.outcome import table

FAMILIES = {False: "network faults, without TLS", True: "network faults, over mutual TLS"}
AT_ONCE = 10  # runs, which wait for most of their time; with more, a busy machine loses links that no fault befell


def books_of(seeds: Iterable[int], folder: Path) -> Iterator[Books]:
    """Do the runs of these seeds."""
    schedules = [draw(seed) for seed in seeds]
    names = [f"n{shard}" for shard in range(max(schedule.num_nodes for schedule in schedules))]
    with enrolled(folder / "state", names) as control, JumpingClock() as clock, ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda schedule: keep_books(schedule, folder, clock, control), schedules)


def kinds(books: Iterable[Books]) -> str:
    """How often which fault befell a node with a task."""
    faults: Counter[str] = sum((each.faults for each in books), Counter())
    return " · ".join(f"{kind} {faults[kind]}" for kind in sorted(faults))


def main() -> int:
    """Run ``--schedules`` of them; 1 if one broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    asked = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    start, books = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for done in books_of(range(asked.first, asked.first + asked.schedules), Path(folder)):
            books.append(done)
            results.keep(FAMILIES[done.is_tls], done.outcome)
            for problem in done.problems:
                print(f"seed {done.seed}: {problem}", flush=True)
    families = {name: [each.outcome for each in books if each.is_tls is is_tls] for is_tls, name in FAMILIES.items()}
    print(table({name: some for name, some in families.items() if some}), kinds(books), sep="\n")
    print(f"{time.monotonic() - start:.0f} s")
    results.keep_figure("Faults of the network, by kind", kinds(books))
    longest = f"{max(each.back_seconds for each in books):.1f} s"
    results.keep_figure("Longest until all nodes answered once the network carried again", longest)
    return int(any(each.problems for each in books))


if __name__ == "__main__":
    raise SystemExit(main())
