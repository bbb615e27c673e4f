"""Many schedules of network faults, several at once, and what they came to: ``python -m tests.faults.network``."""

import argparse
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.certificates import enrolled
from tests.faults.network_faults import JumpingClock, draw
from tests.faults.network_runs import Books, keep_books

AT_ONCE = 16  # runs, which wait for most of their time


def books_of(seeds: Iterable[int], folder: Path) -> Iterator[Books]:
    """Do the runs of these seeds."""
    schedules = [draw(seed) for seed in seeds]
    names = [f"n{shard}" for shard in range(max(schedule.num_nodes for schedule in schedules))]
    with enrolled(folder / "state", names) as control, JumpingClock() as clock, ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda schedule: keep_books(schedule, folder, clock, control), schedules)


def table(books: Iterable[Books]) -> list[str]:
    """The sums, a line each, in the form of the table in docs/reliability.md."""
    all_books = list(books)
    verdicts: Counter[str] = sum((each.verdicts for each in all_books), Counter())
    faults: Counter[str] = sum((each.faults for each in all_books), Counter())
    return [
        f"| Schedules | {len(all_books)} |",
        f"| – over mutual TLS | {sum(each.is_tls for each in all_books)} |",
        f"| Faults that befell a node with a task | {faults.total()} |",
        *(f"| – {kind} | {faults[kind]} |" for kind in sorted(faults)),
        f"| Tasks issued | {sum(each.num_issued for each in all_books)} |",
        *(f"| = {verdict} | {verdicts[verdict]} |" for verdict in sorted(verdicts)),
        f"| Late updates among the accepted | {sum(each.num_late for each in all_books)} |",
        f"| Unexplained, counted twice or averaged wrongly | {sum(len(each.problems) for each in all_books)} |",
        f"| Longest overrun of a round | {max(max(each.overruns) for each in all_books):.3f} s |",
    ]


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
            for problem in done.problems:
                print(f"seed {done.seed}: {problem}", flush=True)
    print("\n".join(table(books)), f"\n{time.monotonic() - start:.0f} s", flush=True)
    return int(any(each.problems for each in books))


if __name__ == "__main__":
    raise SystemExit(main())
