"""What simulated rounds cost, beside other simulators and the limit: 100 clients of 600 images, 10 of them a round.

Two works (``benchmarks.simulated_task``): *still*, where clients do all but train, and *training*, an epoch at batch
10. Every arm is a process of its own, started anew for each turn, so that starting up is part of it; they take turns:

- fedge: ``server.rounds`` on ``server.simulation``, every update screened, with one process or two workers;
- ray: the same app, rounds and screen on Flower's simulation engine, which starts a worker a core. It is waited for as
  Flower's strategies do it, and (``ray, our wait``) as ``--engine ray`` does;
- blazefl, pfl: the trainers and servers that they ship, on data that lie prepared in memory. Neither checks what comes
  back, and in one process neither encodes it. In the work *still* their updates are also packed into records and pass
  Fedge's checks (``blazefl, screened`` and ``pfl, screened``). They are looked for in a folder of their own (--peers)
  too: what they say that they need is not what this Python has, though they work with it;
- bare: processes with ``fit``, a buffer of bytes on a pipe, and a mean: the limit.

All compute with one thread a process; then once, for fewer rounds, with torch's default, which Fedge's app does not
heed: it sets one. How turns are counted and repeated: ``benchmarks.turns``; a round counts from the second on. All arms
that train with Fedge's code must end with the same weights, to the bit. Last comes what Fedge holds with 1,000 clients.

    python -m benchmarks.simulation --peers FOLDER

where FOLDER was filled with, for instance,

    python -m pip install --no-deps --ignore-requires-python --target FOLDER blazefl==2.0.3 pfl==0.6.0 tqdm multiprocess
        dill scipy dp-accounting==0.5.1 prv-accountant attrs dm-tree mpmath absl-py wrapt
"""

import argparse
import importlib.machinery
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.processes import ROOT, finish, started
from benchmarks.turns import Arm, mark, take_turns

WORKS = ("still", "training", "default-threads", "memory")
QUIET = {("still", "ray"): 0.21, ("training", "ray"): 0.81}  # seconds of a round, seen on a quiet machine
NUM_STILL, NUM_TRAINING, NUM_BY_DEFAULT = 40, 20, 6  # rounds a turn
PEERS = ("blazefl", "pfl")  # packages, and first words of their arms
NODES = "benchmarks.virtual_run"
ARMS: dict[str, tuple[str, tuple[object, ...]]] = {
    "fedge": (NODES, ()),
    "fedge, 2 workers": (NODES, ("--workers", 2)),
    "ray": (NODES, ("--way", "ray-as-flower")),
    "ray, our wait": (NODES, ("--way", "ray")),
    "blazefl": ("benchmarks.peer_blazefl", ("--way", "serial")),
    "blazefl, 2 threads": ("benchmarks.peer_blazefl", ("--way", "threads", "--workers", 2)),
    "blazefl, 2 processes": ("benchmarks.peer_blazefl", ("--way", "processes", "--workers", 2)),
    "pfl": ("benchmarks.peer_pfl", ()),
    "pfl, 2 processes": ("benchmarks.peer_pfl", ("--workers", 2)),
    "blazefl, screened": ("benchmarks.peer_blazefl", ("--way", "serial", "--screened")),
    "pfl, screened": ("benchmarks.peer_pfl", ("--screened",)),
    "bare": ("benchmarks.bare_loop", ()),
    "bare, 2 processes": ("benchmarks.bare_loop", ("--workers", 2)),
}
SCREENED = "screened"  # last word of arms of peers that Fedge's checks were added to; training is not made of checks
SAME_WEIGHTS = ("fedge", "ray", "bare")  # first words of arms that train with Fedge's own code


@dataclass(frozen=True)
class Turn:
    """One process of an arm, from its start."""

    ended: list[float]  # seconds from the start to the end of each round
    sha256: str
    rss_mb: list[float]  # after each round, where that was asked for

    @property
    def rounds(self) -> list[float]:
        """Seconds of each round from the second on."""
        return [later - earlier for earlier, later in pairwise(self.ended)]


class Bench:
    """Runs arms."""

    def __init__(self, state: Path, peers: str) -> None:
        """``peers``: a folder with packages that this Python's own does not have; may be empty."""
        self._state, self._peers = state, peers

    def missing(self, arm: str) -> bool:
        """Whether an arm is that of a peer that is not installed."""
        package = arm.partition(",")[0]
        places = [self._peers, *sys.path] if self._peers else sys.path
        return package in PEERS and importlib.machinery.PathFinder.find_spec(package, places) is None

    def turn(self, arm: str, *arguments: object, threads: int = 1) -> Turn:
        """Run ``arm`` once."""
        module, own = ARMS[arm]
        path = os.pathsep.join([str(ROOT), self._peers] if self._peers else [str(ROOT)])
        more = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
        start = time.monotonic()
        with started(self._state, module, *own, *arguments, more=more) as process:
            *rows, last = [json.loads(line) for line in finish(process)]
        ended = [row["ended"] - start for row in rows]
        return Turn(ended, last["sha256"], [row["rss_mb"] for row in rows if "rss_mb" in row])

    def compare(self, work: str, arms: Iterable[str], *arguments: object) -> list[dict[str, Any]]:
        """Let ``arms`` take turns."""
        turns: dict[str, list[Turn]] = {arm: [] for arm in arms}

        def take(arm: str) -> list[float]:
            turns[arm].append(self.turn(arm, *arguments))
            return turns[arm][-1].rounds

        measured = take_turns([Arm(arm, partial(take, arm), QUIET.get((work, arm), 0.0)) for arm in turns])
        check_weights(turns)
        return [each.figures() | whole(turns[each.arm.name]) for each in measured]

    def once(self, arms: Iterable[str], threads: int, *arguments: object) -> list[dict[str, Any]]:
        """One turn of each arm with so many threads a process."""
        turns = {arm: [self.turn(arm, *arguments, threads=threads)] for arm in arms}
        return [
            {"arm": arm, "median": median(turn.rounds), "min": min(turn.rounds), "turns": [], "threads": threads}
            | whole([turn])
            for arm, (turn,) in turns.items()
        ]


def whole(turns: Sequence[Turn]) -> dict[str, float]:
    """Seconds from the start of a process to the ends of its first and of its last round."""
    return {"first": median(turn.ended[0] for turn in turns), "all": median(turn.ended[-1] for turn in turns)}


def check_weights(turns: Mapping[str, Sequence[Turn]]) -> None:
    """Hold all arms that train with Fedge's code, however they do it, to the same weights."""
    ours = {arm: {turn.sha256 for turn in each} for arm, each in turns.items() if arm.partition(",")[0] in SAME_WEIGHTS}
    assert len(set().union(*ours.values())) <= 1, f"the arms end with different models: {ours}"


def ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the goals are about, of one work; those whose arms were not measured are left out."""
    by_arm = {row["arm"]: row for row in rows}
    peers = [row for row in rows if row["arm"].partition(",")[0] in PEERS]
    screened = [row for row in peers if row["arm"].endswith(SCREENED)]
    as_they_are = [row for row in peers if row not in screened]
    ours = [row for row in rows if row["arm"].partition(",")[0] == "fedge"]
    peer, checked, fedge = (
        min(some, key=lambda row: float(row["median"]), default={"arm": ""}) for some in (as_they_are, screened, ours)
    )
    pairs = [
        ("ray", fedge["arm"], "median"),
        ("ray", fedge["arm"], "min"),
        ("ray", fedge["arm"], "all"),
        ("ray, our wait", fedge["arm"], "median"),
        (peer["arm"], fedge["arm"], "median"),
        (checked["arm"], fedge["arm"], "median"),
        ("fedge", "fedge, 2 workers", "median"),
        ("fedge", "fedge, 2 workers", "min"),
        ("bare", "bare, 2 processes", "median"),
        ("fedge, 2 workers", "bare, 2 processes", "median"),
    ]
    return {
        f"{slower} : {quicker} ({key})": by_arm[slower][key] / by_arm[quicker][key]
        for slower, quicker, key in pairs
        if slower in by_arm and quicker in by_arm
    }


def memory(bench: Bench, num_workers: int, num_asked: int, num_rounds: int) -> dict[str, Any]:
    """Resident memory of the run's processes with 1,000 clients of 60 images."""
    size = ("--clients", 1000, "--cohort", num_asked, "--rounds", num_rounds, "--memory")
    rss = bench.turn("fedge, 2 workers" if num_workers == 2 else "fedge", *size).rss_mb
    quarter = max(1, len(rss) // 4)
    places = {"first": rss[0], "quarter": rss[quarter - 1], "half": rss[2 * quarter - 1], "last": rss[-1]}
    return {"workers": num_workers, "cohort": num_asked, "rounds": num_rounds} | places


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """For people; seconds."""
    made = Table("Arm", "Round", "Min", "End of round 1", "Of all", "Turns", title=title)
    for row in rows:
        figures = (f"{row['median']:.4f}", f"{row['min']:.4f}", f"{row['first']:.1f}", f"{row['all']:.1f}")
        turns = " ".join(f"{seconds:.4f}" for seconds in row["turns"])
        made.add_row(row["arm"], *figures, f"{turns} {mark(dict(row)) if 'steady' in row else ''}".strip())
    return made


def show(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table in seconds, and the ratios that it comes to."""
    console.print(table(f"{title}; seconds", rows))
    print("\n".join(f"{names}: {value:.2f}" for names, value in ratios(rows).items()), flush=True)


def main() -> None:
    """Measure, and print tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="", help="folder of packages with BlazeFL and pfl-research")
    parser.add_argument("--only", nargs="+", choices=WORKS)
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=tuple(ARMS))
    asked = parser.parse_args()
    console, found = Console(width=120), dict[str, Any]()
    print(f"load average before: {os.getloadavg()[0]:.1f}, cores: {os.cpu_count()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fedge-simulation-", ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), str(Path(asked.peers).resolve()) if asked.peers else "")
        arms = [arm for arm in asked.arms if not bench.missing(arm)]
        if left_out := [arm for arm in asked.arms if arm not in arms]:
            print(f"not installed, so not measured: {'; '.join(left_out)} (see --help)", flush=True)
        plain = [arm for arm in arms if not arm.endswith(SCREENED)]
        default = psutil.cpu_count(logical=False) or 1
        wanted = asked.only or WORKS
        bench.turn("fedge", "--still", "--rounds", 1)  # a machine's first reader of MNIST unpacks it, for a second
        if "still" in wanted:
            found["still"] = bench.compare("still", arms, "--still", "--rounds", NUM_STILL)
            show(console, f"Still: {NUM_STILL} rounds without training, one thread a process", found["still"])
        if "training" in wanted:
            found["training"] = bench.compare("training", plain, "--rounds", NUM_TRAINING)
            show(console, f"Training: {NUM_TRAINING} rounds, one thread a process", found["training"])
        if "default-threads" in wanted:
            found["default-threads"] = bench.once(plain, default, "--rounds", NUM_BY_DEFAULT)
            show(console, f"Training: {NUM_BY_DEFAULT} rounds, {default} threads a process", found["default-threads"])
        if "memory" in wanted:
            sizes = ((1, 10, 200), (1, 100, 60), (2, 100, 60))
            found["memory"] = [memory(bench, *size) for size in sizes]
            print("\n".join(f"1,000 clients, resident MB: {row}" for row in found["memory"]))
    comparisons = {name: ratios(rows) for name, rows in found.items() if name != "memory"}
    print(json.dumps({"benchmark": "simulation", "load": os.getloadavg(), "ratios": comparisons} | found))


if __name__ == "__main__":
    main()
