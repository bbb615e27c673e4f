"""Kills a server or a node at one point, starts it again with the same command, and holds the run to one without."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.models import weights_sha256
from tests.e2e.runs import json_lines, points_of, state_of
from tests.faults.federation import NODES, PATIENCE_SECONDS, ROUNDS, Federation
from tests.faults.injector import Fault
from tests.faults.nursery import Nursery
from tests.faults.outcome import Outcome

LEARNED = ("round", "test_loss", "test_accuracy", "train_loss", "num_nodes", "best")
KILLED = -9


@dataclass(frozen=True)
class Crash:
    """Who dies, and when: at points of its first lives, or at a time.

    Attributes:
        who: ``server`` or a node's name.
        faults: where its first, second, … life ends; None in a life's place = at a time.
        after_seconds: when the first life ends, for one without a point.
    """

    who: str
    faults: tuple[Fault, ...] = ()
    after_seconds: float | None = None

    @property
    def name(self) -> str:
        """What it can be found by."""
        if self.after_seconds is not None:
            return f"{self.who} killed after {self.after_seconds:.3f} s"
        return " then ".join(f"{fault.point} #{fault.occurrence}" for fault in self.faults)


class Stage:
    """Where trials are played: one nursery, one cache of MNIST, one run without faults to compare with."""

    def __init__(self, nursery: Nursery, folder: Path, cache: Path) -> None:
        self.nursery, self.folder, self.cache = nursery, folder, cache

    def federation(self, name: str) -> Federation:
        """A new one in a folder of that name."""
        return Federation(self.nursery, self.folder / name, self.cache)

    @cached_property
    def reference(self) -> Path:
        """The run directory of a run that nothing happens to."""
        federation = self.federation("reference")
        try:
            for who in ("server", *NODES):
                federation.start(who, record=federation.folder / f"{who}.points")
            codes = [federation.wait(who) for who in ("server", *NODES)]
            assert codes == [0, 0, 0], f"{codes}\n{federation.said('server')}\n{federation.said('a')}"
        finally:
            federation.end()
        return federation.run

    def reference_points(self, who: str) -> Path:
        """The points that one of them passed in it, a line each."""
        return self.reference.parents[1] / f"{who}.points"

    def resumed_points(self, killed_at: Fault) -> Path:
        """The points that a server passes after it was killed there."""
        record = self.folder / "resumed" / "server.points"
        if not record.exists():
            play(self, Crash("server", (killed_at,)), "resumed", record)
        return record


def play(stage: Stage, crash: Crash, name: str = "trial", record: Path | None = None) -> Outcome:
    """The whole story of one crash; ``record`` takes the points of the victim's last life."""
    reference = stage.reference
    federation = stage.federation(name)
    try:
        num_faults, problems = _live_through(federation, crash, record)
        return judge(crash.name, federation, reference, num_faults, problems)
    finally:
        federation.end()


def _live_through(federation: Federation, crash: Crash, record: Path | None) -> tuple[int, list[str]]:
    """Start everyone, kill, start again until the run is done; returns how often it struck, and what was wrong."""
    lives: list[Fault | None] = [*crash.faults] or [None]
    for who in ("server", *NODES):
        is_victim = who == crash.who
        federation.start(who, lives[0] if is_victim else None, None, crash.after_seconds if is_victim else None)
    num_faults = 0
    for following in (*lives[1:], None):
        code = federation.wait(crash.who)
        if code != KILLED:
            break
        num_faults += 1
        federation.start(crash.who, following, None if following else record)
    return num_faults, _ends(federation, crash.who)


def _ends(federation: Federation, victim: str) -> list[str]:
    """Wait for everyone's end; returns what was wrong with it."""
    codes = {"server": federation.wait("server") if "server" in federation.pids else 0}
    is_over = "is finished" in federation.said("server")  # killed after that was saved: nothing to go on with
    for node in NODES:
        # A node that could not be told, or that comes when the server has gone, waits for the next run: as it should.
        may_wait = is_over or (node == victim and "the run is done" in federation.said(NODES[1]))
        if node in federation.pids:
            codes[node] = _end_or_wait(federation, node) if may_wait else federation.wait(node)
    if is_over and codes["server"] == 2:
        del codes["server"]
    return [f"{who} ended with {code}" for who, code in codes.items() if code != 0]


def _end_or_wait(federation: Federation, node: str) -> int | None:
    """The exit code of a node; 0 also for one that waits for a server."""
    for _ in range(int(PATIENCE_SECONDS / 0.2)):
        code = federation.wait(node, 0.2)
        if code is not None:
            return code
        if "trying again" in federation.said(node).splitlines()[-1]:
            return 0
    return None


def judge(
    name: str, federation: Federation, reference: Path, num_faults: int, problems: list[str], may_leave: bool = False
) -> Outcome:
    """What is wrong with a finished run, compared with the one that nothing happened to.

    Where nobody was started again (``may_leave``), temporary files may be left: the next start removes them.
    """
    run = federation.run
    try:
        identical = weights(run) == weights(reference)
        ledger, metrics = json_lines(run / "ledger.jsonl"), json_lines(run / "metrics.jsonl")
    except (OSError, ValueError, KeyError) as error:
        return Outcome(name, num_faults, False, False, problems=(*problems, f"unreadable: {error}"))
    finished = [row["round"] for row in metrics] == list(range(ROUNDS + 1))
    found = {
        "the run is not finished": not finished,
        "other weights": not identical,
        "other figures": _learned(metrics) != _learned(json_lines(reference / "metrics.jsonl")),
        "another best.json": (run / "best.json").read_bytes() != (reference / "best.json").read_bytes(),
        "another ledger": _settled(ledger) != _settled(json_lines(reference / "ledger.jsonl")),
        "TensorBoard's steps": points_of(run).get("test/accuracy") != list(range(ROUNDS + 1)),
        f"leftovers: {leftovers(federation.folder)}": bool(leftovers(federation.folder)) and not may_leave,
        f"repeated rounds: {dict(repeats(federation))}": sum(repeats(federation).values()) > num_faults,
        "a traceback": any("Traceback" in federation.said(who) for who in ("server", *NODES)),
    }
    verdicts = Counter(line["verdict"] for line in ledger)
    return Outcome(
        name, num_faults, finished, identical, ROUNDS * len(NODES),
        verdicts["accepted"], verdicts["rejected"], verdicts["expired"],
        problems=(*problems, *(problem for problem, is_so in found.items() if is_so)),
    )  # fmt: skip


def weights(run: Path) -> list[str]:
    """SHA-256 of the last and of the best model."""
    return [weights_sha256(state_of(run / name)) for name in ("last.pt", "best.pt")]


def leftovers(folder: Path) -> list[str]:
    """Temporary files of ours that are still there, also in the state folder."""
    found = (path.relative_to(folder) for kind in ("tmp", "part") for path in folder.rglob(f".*.{kind}"))
    return sorted(str(path) for path in found if "cache" not in path.parts)


def repeats(federation: Federation) -> Counter[int]:
    """How often each round was begun again."""
    begun = Counter(event["round"] for event in federation.events() if event.get("event") == "round_started")
    return Counter({number: count - 1 for number, count in begun.items() if count > 1})


def _learned(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row.get(key) for key in LEARNED} for row in metrics]


def _settled(ledger: list[dict[str, Any]]) -> list[str]:
    keys = ("round", "node", "shard", "examples", "sha256", "verdict", "reason")
    return [json.dumps({key: line[key] for key in keys}) for line in ledger]
