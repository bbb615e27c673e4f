"""One run under a schedule of network faults: a real server, light nodes behind a chaos proxy, and its books."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ConfigRecord

from common.errors import RunFailed
from common.layers import load
from common.training import Evaluation
from server import strategies
from server.admission.passport import Control
from server.fleet import Fleet
from server.gathering import Cohort, gather, sample
from server.grids import Node, NodeGrid, Verdict
from server.link.roster import Roster, node_id
from server.plan import Plan
from server.rounds import rounds
from server.storage.checkpoint import Kept
from server.storage.durable import read_json_lines
from server.storage.folders import LEDGER
from server.storage.run_directory import RunDirectory
from server.updates.late import LateWork
from server.updates.screening import Screen
from tests.faults.accounts import not_of_the_accepted, out_of_balance, unexplained
from tests.faults.chaos_proxy import ChaosProxy
from tests.faults.light_nodes import NUM_EXAMPLES, LightNode, light_state
from tests.faults.network_faults import JumpingClock, Schedule, Weathermaker
from tests.faults.outcome import Outcome
from tests.faults.tape import Silent, Tape
from tests.link_twins import link_settings

EVALUATION = Evaluation(loss=0.5, accuracy=0.5)
LATE_ROUNDS = 2
PATIENCE_SECONDS = 600.0  # for nodes to come: a machine may leave this process a few hundredths of a core


@dataclass(frozen=True)
class Books:
    """What a run came to, by its ledger and by what was seen of it outside."""

    seed: int
    faults: Counter[str]  # that befell a node with a task, by kind
    verdicts: Counter[str]
    num_issued: int
    num_late: int  # updates that were accepted in a later round than their own
    is_tls: bool
    is_finished: bool
    is_replayed: bool  # whether the last model is what the accepted updates average to, bit for bit
    problems: tuple[str, ...]  # empty, or a promise was broken
    overruns: tuple[float, ...]  # seconds that each round went on beyond its deadline; below 0 = it was done before
    back_seconds: float  # from when all lines carried again until all nodes had answered

    @property
    def outcome(self) -> Outcome:
        """For the table of all faults."""
        return Outcome(
            schedule=f"seed {self.seed}",
            num_faults=self.faults.total(),
            finished=self.is_finished,
            identical=self.is_replayed,
            issued=self.num_issued,
            accepted=self.verdicts["accepted"],
            rejected=self.verdicts["rejected"],
            expired=self.verdicts["expired"],
            late=self.num_late,
            problems=self.problems,
        )


def keep_books(schedule: Schedule, folder: Path, clock: JumpingClock, control: Control) -> Books:
    """Do the run that ``schedule`` describes, and settle its accounts; over TLS, ``control`` knows its nodes."""
    settings = link_settings(
        link_beat_seconds=0.25,
        link_silence_seconds=1.0,
        federation_rejoin_seconds=0.6,
        federation_rounds=schedule.num_rounds,
        federation_late_rounds=LATE_ROUNDS,
        data_num_shards=schedule.num_nodes,
    )
    names = [f"n{shard}" for shard in range(schedule.num_nodes)]
    fleet = Fleet(
        settings, Roster(schedule.num_nodes, 1), light_bytes(), Silent(), control if schedule.is_tls else None
    )
    with ExitStack() as held:
        held.enter_context(fleet)
        proxy = held.enter_context(ChaosProxy(fleet.port, names, schedule.seed))
        run = held.enter_context(RunDirectory.create(folder, f"run-{schedule.seed}", settings))
        enrol_port = fleet.enrol_port if schedule.is_tls else 0
        nodes = [
            LightNode(name, shard, proxy.ports[name], run.path / "state", enrol_port)
            for shard, name in enumerate(names)
        ]
        for node in nodes:
            held.callback(node.stop)
        tape, weather = Tape(fleet, names), Weathermaker(schedule, proxy, nodes)
        held.callback(weather.clear)
        run.begin(light_state(), EVALUATION)
        problems = _train(schedule, tape, run, weather, clock)
        clear_at = time.monotonic()
        problems += _out_of_reach(tape, names)
        back_seconds = time.monotonic() - clear_at
        fitted = {place for node in nodes for place in node.fitted}
    return _settled(schedule, run, tape, fitted, problems, back_seconds)


def light_bytes() -> int:
    """Size of a light model."""
    return sum(value.numel() * value.element_size() for value in light_state().values())


def light_plan(run: RunDirectory, schedule: Schedule, grid: NodeGrid) -> Plan:
    """FedAvg over light nodes, which may be late."""
    screen = Screen([NUM_EXAMPLES + 7 * shard for shard in range(schedule.num_nodes)], 1, max_norm_ratio=0.0)
    strategy = strategies.build(load().strategy)
    late = LateWork(run.settings, run.run_id, grid, screen, lambda _: True, {})
    config = ConfigRecord({})
    return Plan(run.run_id, strategy, screen, config, schedule.deadline_seconds, replace_lost=True, late=late)


def _train(schedule: Schedule, tape: Tape, run: RunDirectory, weather: Weathermaker, clock: JumpingClock) -> list[str]:
    """All rounds; gives what did not add up after one of them, a sentence each."""

    def cohort(number: int) -> Cohort:
        free = _gathered(tape, schedule.num_nodes, PATIENCE_SECONDS if number == 1 else schedule.return_seconds)
        weather.strike(number, clock)
        return sample(free, schedule.fraction, schedule.seed, number, schedule.over_selection)

    plan = light_plan(run, schedule, tape)
    assert plan.late, "a light plan has late work"
    judged: list[str] = []
    problems: list[str] = []
    for done in rounds(tape, plan, light_state(), range(1, schedule.num_rounds + 1), cohort):
        weather.clear()
        run.commit(done, EVALUATION, Kept(late=plan.late.memory()))
        judged += [report.task for report in done.reports]
        problems += out_of_balance(done.number, tape.issued, judged, [report.task for report in done.owed])
        tape.settle(Verdict(node_id(r.node), r.task, r.verdict, r.reason) for r in done.reports)
    run.finish(plan.late.unpaid())
    return problems


def _out_of_reach(tape: Tape, names: Iterable[str]) -> list[str]:
    """Which nodes do not answer though their lines carry again, a sentence each."""
    silent, deadline = {node_id(name): name for name in names}, time.monotonic() + PATIENCE_SECONDS
    while silent and time.monotonic() < deadline:
        here = [node.node_id for node in (*tape.nodes(), *tape.busy()) if node.node_id in silent]
        answers = tape.ask(here)
        silent = {node: name for node, name in silent.items() if node not in answers}
        if silent:
            tape.wait_for_change(0.1)
    return [f"{name} is not back" for name in silent.values()]


def _gathered(tape: Tape, num_nodes: int, seconds: float) -> list[Node]:
    """All nodes, if they can be had within ``seconds``; else those that are free, at least one."""
    with suppress(RunFailed):
        return gather(tape, num_nodes, seconds, lambda: False, lambda _: None)
    return gather(tape, 1, PATIENCE_SECONDS, lambda: False, lambda _: None)


def _settled(
    schedule: Schedule,
    run: RunDirectory,
    tape: Tape,
    fitted: set[tuple[int, int]],
    problems: list[str],
    back_seconds: float,
) -> Books:
    ledger = read_json_lines(run.path / LEDGER)
    assert run.checkpoint is not None, "the run was begun"
    problems = problems + unexplained(run.run_id, tape.issued, ledger, fitted, LATE_ROUNDS)
    is_finished = run.checkpoint.finished and run.checkpoint.round == schedule.num_rounds
    if not is_finished:
        problems.append(f"{run.checkpoint.round} of {schedule.num_rounds} rounds are done")
    wrongly_averaged = not_of_the_accepted(ledger, light_state(), run.checkpoint.state)
    return Books(
        seed=schedule.seed,
        faults=Counter(
            fault.kind
            for (number, shard), fault in schedule.faults.items()
            if f"{run.run_id}/{number}/n{shard}" in tape.issued
        ),
        verdicts=Counter(str(line["verdict"]) for line in ledger),
        num_issued=len(tape.issued),
        num_late=sum(line["verdict"] == "accepted" and line["judged"] > line["round"] for line in ledger),
        is_tls=schedule.is_tls,
        is_finished=is_finished,
        is_replayed=not wrongly_averaged,
        problems=(*problems, *wrongly_averaged),
        overruns=tuple(seconds - schedule.deadline_seconds for seconds in tape.seconds),
        back_seconds=back_seconds,
    )
