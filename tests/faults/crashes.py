"""Every crash and every failing disk there is, some at once: ``python -m tests.faults.crashes``."""

import argparse
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from common import mnist
from common.state import state_dir
from tests.faults.crash_schedules import crashes
from tests.faults.crash_trials import Stage, play
from tests.faults.disk_trials import disk_faults, play_disk
from tests.faults.nursery import Nursery
from tests.faults.outcome import Outcome, table

Play = Callable[..., Outcome]  # of a stage and the name of a folder on it


def outcomes(folder: Path, num_at_once: int, num_random: int, only: str = "") -> Iterator[tuple[str, Outcome]]:
    """Play all whose family and name hold ``only``; gives (family, outcome) in their order."""
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

        wanted = [each for each in _all(stages[0], num_random) if only in f"{each[0]}: {each[1]}"]
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--random", type=int, default=60, help="how many of the server and of a node are at a time")
    parser.add_argument("--only", default="", help="a part of a family and name")
    asked = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every restart
    start, families = time.monotonic(), dict[str, list[Outcome]]()
    folder = Path(tempfile.mkdtemp(prefix="crashes-"))
    for family, outcome in outcomes(folder, asked.at_once, asked.random, asked.only):
        families.setdefault(family, []).append(outcome)
        if outcome.problems:
            print(f"{family}: {outcome.schedule}: {'; '.join(outcome.problems)}", flush=True)
    print(table(families), f"\n{time.monotonic() - start:.0f} s", flush=True)
    broken = any(outcome.problems for each in families.values() for outcome in each)
    if broken:
        print(f"what is left of them is in {folder}")
    else:
        shutil.rmtree(folder)
    return int(broken)


if __name__ == "__main__":
    raise SystemExit(main())
