"""Whether the ledger of a run under a kill loop accounts for every task that was issued in a round that is saved."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.layers import load
from server.storage.durable import read_json_lines
from server.storage.folders import LEDGER, METRICS

LATE_ROUNDS = load().federation.late_rounds


@dataclass(frozen=True)
class Account:
    """Sums, and what does not add up, a sentence each."""

    issued: int  # by what the server told when it began each round; see ``account_of``
    accepted: int
    rejected: int
    expired: int
    unexplained: tuple[str, ...]


def account_of(run: Path, events: Iterable[Mapping[str, Any]], worked_on: Iterable[tuple[int, str]]) -> Account:
    """Hold the ledger of ``run`` against the server's events and what nodes said, but for its last rounds.

    In these, updates may still be owed (``federation.late_rounds``), and have no verdict yet.

    A round that was done again after a kill asked the nodes of each time, of which many are the same: there, the number
    of verdicts is only bounded by what the server told, and what nodes said is what tells a missing one. A server that
    was killed once it had written down whom it asks, and before it could tell, leaves no upper bound either.

    Args:
        run: its directory.
        events: all that the server told, over all its lives; no node may be asked in the place of another.
        worked_on: (round, node) of every fit that a node told of.
    """
    last = max(row["round"] for row in read_json_lines(run / METRICS))
    saved = set(range(1, last - LATE_ROUNDS + 1))
    ledger = [line for line in read_json_lines(run / LEDGER) if line["round"] in saved]
    asked: dict[int, list[int]] = {}
    begun = Counter({1: -1})  # how often a server took up a round that another had left
    for event in events:
        if event["event"] == "round_started":
            asked.setdefault(event["round"], []).append(event["num_nodes"])
        if event["event"] == "started":
            begun[event["first_round"]] += 1
    lines = Counter(line["round"] for line in ledger)
    tasks = Counter(line["task"] for line in ledger)
    names = {(line["round"], line["node"]) for line in ledger}
    verdicts = Counter(line["verdict"] for line in ledger)
    unexplained = [f"{task} has {times} lines" for task, times in tasks.items() if times > 1]
    unexplained += [
        f"round {number}: {asked.get(number)} tasks issued, {lines[number]} verdicts"
        for number in sorted(saved)
        if lines[number] < asked[number][-1]
        or (len(asked[number]) > begun[number] and lines[number] > sum(asked[number]))
    ]
    unexplained += [
        f"{node} worked in round {number}: no verdict"
        for number, node in sorted(set(worked_on) - names)
        if number in saved
    ]
    return Account(
        issued=sum(asked[number][0] if len(asked[number]) == 1 else lines[number] for number in saved),
        accepted=verdicts["accepted"],
        rejected=verdicts["rejected"],
        expired=verdicts["expired"],
        unexplained=tuple(unexplained),
    )
