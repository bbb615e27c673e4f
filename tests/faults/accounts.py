"""Settling a run's accounts: every task that was issued has one verdict, and the model is that of the accepted updates.

Both are read from ``ledger.jsonl`` alone, and held against what was seen outside of the server.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch

from common.models import State, weights_sha256
from common.records import Update
from tests.faults.light_nodes import light_fit

Line = Mapping[str, Any]  # of a ledger
VERDICTS = {"accepted", "rejected", "expired"}


def unexplained(
    run: str, issued: Sequence[str], ledger: Sequence[Line], fitted: Iterable[tuple[int, int]]
) -> list[str]:
    """What the ledger does not account for, a sentence each.

    Args:
        run: its id.
        issued: names of the tasks that the server sent out.
        ledger: its lines.
        fitted: (round, shard) of the fits that light nodes began.
    """
    lines = Counter(str(line["task"]) for line in ledger)
    problems = [f"{task} was issued twice" for task, times in Counter(issued).items() if times > 1]
    problems += [f"{task} was issued and has {lines[task]} verdicts" for task in set(issued) if lines[task] != 1]
    problems += [f"{task} was never issued and has a verdict" for task in set(lines) - set(issued)]
    places = {(line["round"], line["shard"]) for line in ledger}
    problems += [f"shard {shard} fitted in round {number}: no verdict" for number, shard in set(fitted) - places]
    problems += [f"{line['task']} ended as {line['verdict']}" for line in ledger if line["verdict"] not in VERDICTS]
    return problems + [f"{task} is not of run {run}" for task in lines if not task.startswith(f"{run}/")]


def not_of_the_accepted(ledger: Sequence[Line], start: State, final: State) -> list[str]:
    """Where ``final`` differs from what the accepted updates of light nodes make of ``start``, a sentence each.

    FedAvg is done again here, from the ledger's order alone; each weight must be the same, bit for bit.
    """
    state, problems = start, []
    for number in sorted({line["round"] for line in ledger}):
        lines = [line for line in ledger if line["round"] == number and line["verdict"] == "accepted"]
        fits = [light_fit(state, number, line["shard"]) for line in lines]
        problems += [
            f"{line['task']} is {line['examples']} examples, {line['sha256'][:8]}; its node fitted something else"
            for line, fit in zip(lines, fits, strict=True)
            if (line["examples"], line["sha256"]) != (fit.num_examples, weights_sha256(fit.state))
        ]
        state = _average(fits) if fits else state
    if weights_sha256(state) != weights_sha256(final):
        problems.append("the model is not what the accepted updates average to")
    return problems


def _average(fits: Sequence[Update]) -> State:
    """The mean of float32 weights by numbers of examples (McMahan et al. 2017), summed in this order."""
    total = sum(fit.num_examples for fit in fits)
    return {
        name: reduce(torch.add, [(fit.num_examples / total) * fit.state[name] for fit in fits])
        for name in fits[0].state
    }
