"""Settling a run's accounts: every task that was issued has one verdict, and the model is that of the accepted updates.

Both are read from ``ledger.jsonl`` alone, and held against what was seen outside of the server.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch

from common.models import State, weights_sha256
from common.records import Update
from tests.faults.light_nodes import light_fit

Line = Mapping[str, Any]  # of a ledger
VERDICTS = {"accepted", "rejected", "expired"}


class Counted(NamedTuple):
    """What goes into an average for an update."""

    state: State
    weight: float


def unexplained(
    run: str, issued: Sequence[str], ledger: Sequence[Line], fitted: Iterable[tuple[int, int]], late_rounds: int
) -> list[str]:
    """What the ledger does not account for, a sentence each.

    Args:
        run: its id.
        issued: names of the tasks that the server sent out.
        ledger: its lines.
        fitted: (round, shard) of the fits that light nodes began.
        late_rounds: for so many rounds after its own a task may be judged.
    """
    lines = Counter(str(line["task"]) for line in ledger)
    problems = [f"{task} was issued twice" for task, times in Counter(issued).items() if times > 1]
    problems += [f"{task} was issued and has {lines[task]} verdicts" for task in set(issued) if lines[task] != 1]
    problems += [f"{task} was never issued and has a verdict" for task in set(lines) - set(issued)]
    places = {(line["round"], line["shard"]) for line in ledger}
    problems += [f"shard {shard} fitted in round {number}: no verdict" for number, shard in set(fitted) - places]
    problems += [f"{line['task']} ended as {line['verdict']}" for line in ledger if line["verdict"] not in VERDICTS]
    problems += [
        f"{line['task']} was judged in round {line['judged']}"
        for line in ledger
        if not 0 <= line["judged"] - line["round"] <= late_rounds
    ]
    counted = Counter(line["sha256"] for line in ledger if line["verdict"] == "accepted")
    problems += [f"update {sha256[:8]} counts {times} times" for sha256, times in counted.items() if times > 1]
    return problems + [f"{task} is not of run {run}" for task in lines if not task.startswith(f"{run}/")]


def out_of_balance(number: int, issued: Iterable[str], judged: Iterable[str], owed: Iterable[str]) -> list[str]:
    """Which tasks are not either judged or owed once round ``number`` is done, a sentence each."""
    standing = Counter([*judged, *owed])
    return [
        f"{task} is judged or owed {standing[task]} times after round {number}"
        for task in {*issued, *standing}
        if standing[task] != 1
    ]


def not_of_the_accepted(ledger: Sequence[Line], start: State, final: State) -> list[str]:
    """Where ``final`` differs from what the accepted updates of light nodes make of ``start``, a sentence each.

    FedAvg is done again here, from the ledger's order alone; each weight must be the same, bit for bit. A late update
    is moved to the model of the round that it is counted in, and weighs less.
    """
    state, problems = start, []
    models: dict[int, State] = {}  # what the tasks of a round came with
    for number in range(1, max(line["judged"] for line in ledger) + 1):
        models[number] = state
        lines = [line for line in ledger if line["judged"] == number and line["verdict"] == "accepted"]
        fits = [light_fit(models[line["round"]], line["round"], line["shard"]) for line in lines]
        problems += [
            f"{line['task']} is {line['examples']} examples, {line['sha256'][:8]}; its node fitted something else"
            for line, fit in zip(lines, fits, strict=True)
            if (line["examples"], line["sha256"]) != (fit.num_examples, weights_sha256(fit.state))
        ]
        counted = [
            _rebased(fit, models[line["round"]], state, number - line["round"])
            for line, fit in zip(lines, fits, strict=True)
        ]
        state = _average(counted) if counted else state
    if weights_sha256(state) != weights_sha256(final):
        problems.append("the model is not what the accepted updates average to")
    return problems


def _rebased(fit: Update, base: State, state: State, late: int) -> Counted:
    """A fit of ``base`` as one of ``state`` that came ``late`` rounds later (docs/reliability.md, late work)."""
    if not late:
        return Counted(fit.state, fit.num_examples)
    moved = {
        name: (state[name].double() + (value.double() - base[name].double())).float()
        for name, value in fit.state.items()
    }
    return Counted(moved, fit.num_examples * (1 + late) ** -0.5)


def _average(counted: Sequence[Counted]) -> State:
    """The mean of float32 weights by examples (McMahan et al. 2017), summed in this order."""
    total = sum(each.weight for each in counted)
    return {
        name: reduce(torch.add, [(each.weight / total) * each.state[name] for each in counted])
        for name in counted[0].state
    }
