"""Twenty nodes and a server whose processes are killed all the time, against the same without: ``make soak``.

Each node is a real ``python -m client`` on mutual TLS, the server a real ``python -m server --resume``; what is killed
(SIGKILL) is started again at once, as by a supervisor. Both arms last equally long, the one without kills goes first.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from common import mnist
from tests.faults.nursery import Nursery
from tests.faults.soak_accounts import Account, account_of
from tests.faults.soak_farm import Farm
from tests.faults.vital_signs import Trend

MIN_SHARE = 0.95  # of the rounds that are done without kills
MAX_SLOPE_MB = 1.0  # growth of a process in a minute that still counts as none
MAX_MORE_FILES = 3
MIN_LIFE_SECONDS = 300.0  # a process that lived for less was still warming up, and its memory says nothing


@dataclass(frozen=True)
class Arm:
    """What one arm came to."""

    name: str
    seconds: float
    rounds: int
    kills_of_nodes: int
    kills_of_server: int
    account: Account
    server: Trend  # of the server's life that lasted longest
    nodes: Trend  # the same of the nodes

    @property
    def is_flat(self) -> bool:
        """Whether neither memory nor open files grow."""
        return all(
            trend.more_files <= MAX_MORE_FILES
            and (trend.mb_a_minute <= MAX_SLOPE_MB or trend.seconds < MIN_LIFE_SECONDS)
            for trend in (self.server, self.nodes)
        )


def run_arm(name: str, farm: Farm, seconds: float, kills: Callable[[float], list[str]]) -> Arm:
    """Let a farm work for ``seconds`` once its first round is done; ``kills`` says who must die by then."""
    farm.start_all()
    farm.wait_for_round(1)
    begin, first = time.monotonic(), farm.rounds_done()
    killed: list[str] = []
    while (now := time.monotonic() - begin) < seconds:
        for who in kills(now):
            farm.kill(who)
            killed.append(who)
        farm.tend()
        time.sleep(0.1)
    rounds = farm.rounds_done() - first
    farm.stop()
    return Arm(
        name=name,
        seconds=seconds,
        rounds=rounds,
        kills_of_nodes=sum(who != "server" for who in killed),
        kills_of_server=killed.count("server"),
        account=account_of(farm.run, farm.events(), farm.tasks_of_nodes()),
        server=farm.trend(["server"]),
        nodes=farm.trend(farm.nodes),
    )


class Killer:
    """Who dies when: nodes at random with a mean time between failures, the server at about regular intervals."""

    def __init__(self, seed: int, nodes: list[str], node_mtbf: float, server_mtbf: float) -> None:
        self._chance = random.Random(seed)
        self._pauses: dict[str, Callable[[], float]] = {
            node: lambda: self._chance.expovariate(1 / node_mtbf) for node in nodes
        }
        self._pauses["server"] = lambda: self._chance.uniform(0.5, 1.5) * server_mtbf
        self._due = {who: pause() for who, pause in self._pauses.items()}

    def __call__(self, now: float) -> list[str]:
        due = [who for who, at in self._due.items() if at <= now]
        for who in due:
            self._due[who] = now + self._pauses[who]()
        return due


def table(arms: list[Arm]) -> list[str]:
    """For people, in the form of docs/reliability.md."""
    rows: list[tuple[str, Callable[[Arm], object]]] = [
        ("Seconds", lambda arm: f"{arm.seconds:g}"),
        ("Nodes killed", lambda arm: arm.kills_of_nodes),
        ("Server killed", lambda arm: arm.kills_of_server),
        ("Rounds finished", lambda arm: arm.rounds),
        ("– of the rounds without kills", lambda arm: f"{arm.rounds / max(1, arms[0].rounds):.1%}"),
        ("Tasks issued in rounds whose verdicts are final", lambda arm: arm.account.issued),
        ("= accepted", lambda arm: arm.account.accepted),
        ("+ rejected", lambda arm: arm.account.rejected),
        ("+ expired", lambda arm: arm.account.expired),
        ("Tasks without just one line in the ledger", lambda arm: len(arm.account.unexplained)),
        ("Server: memory, MB a minute", lambda arm: f"{arm.server.mb_a_minute:+.2f}"),
        ("Server: open files, last less first", lambda arm: f"{arm.server.more_files:+d}"),
        ("Nodes: memory, MB a minute", lambda arm: f"{arm.nodes.mb_a_minute:+.2f}"),
        ("Nodes: open files, last less first", lambda arm: f"{arm.nodes.more_files:+d}"),
    ]
    head = [f"| | {' | '.join(arm.name for arm in arms)} |", f"|---|{'---|' * len(arms)}"]
    return head + [f"| {title} | {' | '.join(str(of(arm)) for arm in arms)} |" for title, of in rows]


def main() -> int:
    """Both arms; 1 if fewer rounds than promised are done, something grows, or a task is not accounted for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of each arm")
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--node-mtbf", type=float, default=30.0, help="mean seconds between the deaths of a node")
    parser.add_argument("--server-mtbf", type=float, default=300.0, help="the same for the server")
    parser.add_argument("--fit", type=float, default=2.0, help="seconds that a fit takes at least")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    mnist.load_labels("train")  # unpacked once, for all
    arms: list[Arm] = []
    for name in ("without kills", "with kills"):
        with tempfile.TemporaryDirectory() as folder, Nursery({"LEAST_FIT_SECONDS": str(asked.fit)}) as nursery:
            farm = Farm(nursery, Path(folder), asked.nodes)
            killer = Killer(asked.seed, farm.nodes, asked.node_mtbf, asked.server_mtbf)
            arms.append(run_arm(name, farm, asked.seconds, killer if arms else lambda _: []))
            print(json.dumps(asdict(arms[-1])), flush=True)
    print("\n".join(table(arms)), flush=True)
    kept = arms[1].rounds >= MIN_SHARE * arms[0].rounds
    return int(not (kept and all(arm.is_flat and not arm.account.unexplained for arm in arms)))


if __name__ == "__main__":
    raise SystemExit(main())
