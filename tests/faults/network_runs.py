"""One run under a schedule of network faults: a real server, light nodes behind a chaos proxy, and its books."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ConfigRecord, Message

from common.errors import RunFailed
from common.layers import load
from common.training import Evaluation
from server import strategies
from server.fleet import Fleet
from server.gathering import Cohort, gather, sample
from server.grids import NOBODY, Answer, Node, NodeGrid, Reserve, Verdict
from server.link.roster import Roster, node_id
from server.plan import Plan
from server.rounds import rounds
from server.storage.durable import read_json_lines
from server.storage.folders import LEDGER
from server.storage.run_directory import RunDirectory
from server.updates.screening import Screen
from tests.faults.accounts import not_of_the_accepted, unexplained
from tests.faults.chaos_proxy import ChaosProxy
from tests.faults.light_nodes import NUM_EXAMPLES, LightNode, light_state
from tests.faults.network_faults import JumpingClock, Schedule, Weathermaker
from tests.link_twins import PATIENCE_SECONDS, link_settings

EVALUATION = Evaluation(loss=0.5, accuracy=0.5)


@dataclass(frozen=True)
class Books:
    """What a run came to, by its ledger and by what was seen of it outside."""

    seed: int
    faults: Counter[str]  # that befell a node with a task, by kind
    verdicts: Counter[str]
    num_issued: int
    problems: tuple[str, ...]  # empty, or a promise was broken
    overruns: tuple[float, ...]  # seconds that each round went on beyond its deadline; below 0 = it was done before


class Silent:
    """A listener that nobody reads."""

    def joined(self, node: str, shard: int, address: str) -> None: ...

    def left(self, node: str, reason: str) -> None: ...

    def progress(self, node: str, fraction: float) -> None: ...

    def delivered(self, node: str) -> None: ...


class Tape(NodeGrid):
    """A grid in front of a fleet that writes down every task which is issued, and how long each exchange took."""

    def __init__(self, fleet: Fleet, names: Iterable[str]) -> None:
        self._fleet = fleet
        self._names = {node_id(name): name for name in names}
        self.issued: list[str] = []
        self.seconds: list[float] = []

    def nodes(self) -> list[Node]:
        return self._fleet.nodes()

    def wait_for_change(self, seconds: float) -> None:
        self._fleet.wait_for_change(seconds)

    def settle(self, verdicts: Iterable[Verdict]) -> None:
        self._fleet.settle(verdicts)

    def exchange(
        self,
        round_name: str,
        messages: Sequence[Message],
        deadline_seconds: float,
        num_enough: int = 0,
        reserve: Reserve = NOBODY,
    ) -> list[Answer]:
        start = time.monotonic()
        answers = self._fleet.exchange(round_name, messages, deadline_seconds, num_enough, reserve)
        self.seconds.append(time.monotonic() - start)
        asked = [message.metadata.dst_node_id for message in messages]
        standing_by = {message.metadata.dst_node_id for message in reserve.messages}
        asked += [answer.node_id for answer in answers if answer.node_id in standing_by]
        self.issued += [f"{round_name}/{self._names[node]}" for node in asked]
        return answers


def keep_books(schedule: Schedule, folder: Path, clock: JumpingClock) -> Books:
    """Do the run that ``schedule`` describes, and settle its accounts."""
    settings = link_settings(
        link_beat_seconds=0.1,
        link_silence_seconds=0.3,
        federation_rejoin_seconds=0.6,
        data_num_shards=schedule.num_nodes,
    )
    names = [f"n{shard}" for shard in range(schedule.num_nodes)]
    roster = Roster(schedule.num_nodes, 1)
    with ExitStack() as held:
        fleet = held.enter_context(Fleet(settings, roster, light_bytes(), Silent()))
        proxy = held.enter_context(ChaosProxy(fleet.port, names, schedule.seed))
        nodes = [LightNode(name, shard, proxy.ports[name]) for shard, name in enumerate(names)]
        for node in nodes:
            held.callback(node.stop)
        run = held.enter_context(RunDirectory.create(folder, f"run-{schedule.seed}", settings))
        tape, weather = Tape(fleet, names), Weathermaker(schedule, proxy, nodes)
        held.callback(weather.clear)
        run.begin(light_state(), EVALUATION)
        _train(schedule, tape, run, weather, clock)
        run.finish()
        fitted = {place for node in nodes for place in node.fitted}
    return _settled(schedule, run, tape, fitted)


def light_bytes() -> int:
    """Size of a light model."""
    return sum(value.numel() * value.element_size() for value in light_state().values())


def light_plan(run: str, schedule: Schedule) -> Plan:
    """FedAvg over light nodes."""
    screen = Screen([NUM_EXAMPLES + 7 * shard for shard in range(schedule.num_nodes)], 1, max_norm_ratio=0.0)
    strategy = strategies.build(load().strategy)
    return Plan(run, strategy, screen, ConfigRecord({}), schedule.deadline_seconds, replace_lost=True)


def _train(schedule: Schedule, tape: Tape, run: RunDirectory, weather: Weathermaker, clock: JumpingClock) -> None:
    def cohort(number: int) -> Cohort:
        free = _gathered(tape, schedule.num_nodes, PATIENCE_SECONDS if number == 1 else schedule.return_seconds)
        weather.strike(number, clock)
        return sample(free, schedule.fraction, schedule.seed, number, schedule.over_selection)

    numbers = range(1, schedule.num_rounds + 1)
    for done in rounds(tape, light_plan(run.run_id, schedule), light_state(), numbers, cohort):
        weather.clear()
        run.commit(done, EVALUATION)
        tape.settle(Verdict(node_id(r.node), r.task, r.verdict, r.reason) for r in done.reports)


def _gathered(tape: Tape, num_nodes: int, seconds: float) -> list[Node]:
    """All nodes, if they can be had within ``seconds``; else those that are free, at least one."""
    with suppress(RunFailed):
        return gather(tape, num_nodes, seconds, lambda: False, lambda _: None)
    return gather(tape, 1, PATIENCE_SECONDS, lambda: False, lambda _: None)


def _settled(schedule: Schedule, run: RunDirectory, tape: Tape, fitted: set[tuple[int, int]]) -> Books:
    ledger = read_json_lines(run.path / LEDGER)
    assert run.checkpoint is not None, "the run was begun"
    problems = unexplained(run.run_id, tape.issued, ledger, fitted)
    if run.checkpoint.round != schedule.num_rounds or not run.checkpoint.finished:
        problems.append(f"{run.checkpoint.round} of {schedule.num_rounds} rounds are done")
    problems += not_of_the_accepted(ledger, light_state(), run.checkpoint.state)
    return Books(
        seed=schedule.seed,
        faults=Counter(
            fault.kind
            for (number, shard), fault in schedule.faults.items()
            if f"{run.run_id}/{number}/n{shard}" in tape.issued
        ),
        verdicts=Counter(str(line["verdict"]) for line in ledger),
        num_issued=len(tape.issued),
        problems=tuple(problems),
        overruns=tuple(seconds - schedule.deadline_seconds for seconds in tape.seconds),
    )
