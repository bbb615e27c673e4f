"""Every crash and every failing disk there is, some at once: ``python -m tests.faults.crashes``."""

import argparse
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from common import mnist
from common.state import state_dir
from tests.faults import results
from tests.faults.crash_schedules import crashes
from tests.faults.crash_trials import Stage, play
from tests.faults.disk_trials import disk_faults, play_disk
from tests.faults.nursery import Nursery
from tests.faults.outcome import Outcome, table

Play = Callable[..., Outcome]  # of a stage and the name of a folder on it


def outcomes(
    folder: Path, num_at_once: int, num_random: int, only: str, known: Container[str]
) -> Iterator[tuple[str, Outcome]]:
    """Play all whose family and name hold ``only`` and that are not known; gives (family, outcome) in their order."""
    mnist.load_labels("train")
    free: SimpleQueue[Stage] = SimpleQueue()
    nurseries = [Nursery() for _ in range(num_at_once)]
    try:
        stages = [Stage(nursery, folder / str(n), state_dir() / "cache") for n, nursery in enumerate(nurseries)]
        for stage in stages:
            free.put(stage)

        def one(case: tuple[str, str, Play]) -> tuple[str, Outcome]:
            family, name, play_on = case
            stage = free.get()
            try:
                outcome = play_on(stage, name=_folder(name))
                if not outcome.problems:
                    shutil.rmtree(stage.folder / _folder(name))
                return family, outcome
            finally:
                free.put(stage)

        wanted = [
            each for each in _all(stages[0], num_random) if only in f"{each[0]}: {each[1]}" and each[1] not in known
        ]
        with ThreadPoolExecutor(num_at_once) as pool:
            yield from pool.map(one, wanted)
    finally:
        for nursery in nurseries:
            nursery.close()


def _all(stage: Stage, num_random: int) -> Iterator[tuple[str, str, Play]]:
    """(family, name, how it is played)."""
    for family, some in crashes(stage, num_random).items():
        yield from ((family, crash.name, partial(play, crash=crash)) for crash in some)
    for family, disks in disk_faults(stage).items():
        yield from ((family, disk.name, partial(play_disk, disk=disk)) for disk in disks)


def _folder(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)[-200:]


def main() -> int:
    """Play them; 1 if one is not explained."""
    asked = _asked()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every restart
    start, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="faults-"))
    if asked.results:
        os.environ[results.VARIABLE] = str(asked.results)
    families, _ = results.read(asked.results) if asked.results else ({}, [])
    known = {outcome.schedule for some in families.values() for outcome in some}
    for family, outcome in outcomes(folder, asked.at_once, asked.random, asked.only, known):
        families.setdefault(family, []).append(outcome)
        results.keep(family, outcome)
        if outcome.problems:
            print(f"{family}: {outcome.schedule}: {'; '.join(outcome.problems)}", flush=True)
    print(table(families), f"\n{time.monotonic() - start:.0f} s", flush=True)
    results.keep_figure("Distinct points of crashes", f"{_num_points(families)}")
    broken = any(outcome.problems for some in families.values() for outcome in some)
    if broken:
        print(f"what is left of them is in {folder}")
    else:
        shutil.rmtree(folder)
    return int(broken)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--random", type=int, default=60, help="how many kills of the server and of a node are at a time"
    )
    parser.add_argument("--only", default="", help="a part of a family and name")
    parser.add_argument("--results", type=Path, help="a file that keeps what was played: one that was stopped goes on")
    return parser.parse_args()


def _num_points(families: results.Families) -> int:
    """Of those that somebody was killed at; the name of a schedule holds them."""
    names = (outcome.schedule for family, some in families.items() if "killed" in family for outcome in some)
    return len({life.rpartition(" #")[0] for name in names for life in name.split(" then ")} - {""})


if __name__ == "__main__":
    raise SystemExit(main())
