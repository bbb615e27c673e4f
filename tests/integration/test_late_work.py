"""Rule: an update that comes after its round counts once in a later average, or its node is told why it does not."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message

from common import fleet_pb2 as pb
from common.arrays import to_encoded, to_record
from common.codecs import by_name
from common.models import State
from common.settings import Settings
from common.wire import model_digest, pack, to_update
from server import strategies
from server.fleet import Fleet
from server.grids import Node, Tasks
from server.memory import Plain
from server.plan import Plan
from server.report import NodeReport, Round
from server.rounds import rounds
from server.updates.late import LateWork
from server.updates.screening import Screen
from tests.link_twins import PATIENCE_SECONDS, BareNode, Diary, fleet_with, hello, link_settings, until
from tests.scripted_grid import everybody, task_message, toy_state, update_of

NOT_OPEN = "this task is not open (any more)"
IN_ALREADY = "an update for it is in already"
NUM_ROUNDS = 6
SHARDS = {"a": 0, "b": 1, "c": 2}
HALF = 1 / math.sqrt(2)  # what an update one round late weighs


class Server:
    """One life of a server: a fleet, and rounds that the test plays the nodes of."""

    def __init__(self, fleet: Fleet, settings: Settings, first: int, state: State, memory: dict[str, Plain]) -> None:
        self.fleet = fleet
        codec, broadcast_codec = (by_name(n, 1.0) for n in (settings.link.codec, settings.link.broadcast_codec))
        screen = Screen([100, 100, 100], max_own_examples=1, max_norm_ratio=0.0, codec=codec)
        self.late = LateWork(settings, "run", fleet, screen, lambda node: node.name not in self.aside, memory)
        self.aside: set[str] = set()
        plan = Plan(
            *("run", strategies.build(settings.strategy), screen, ConfigRecord({}), 60.0),
            late=self.late,
            broadcast_codec=broadcast_codec,
        )
        numbers = range(first, NUM_ROUNDS + 1)
        self._rounds = rounds(fleet, plan, state, numbers, lambda _: everybody(fleet.nodes()))
        self._run_thread = ThreadPoolExecutor(1)

    def round(self) -> Future[Round]:
        """Begin the next one."""
        return self._run_thread.submit(next, self._rounds)


@contextmanager
def served(
    diary: Diary,
    first: int = 1,
    state: State | None = None,
    memory: dict[str, Plain] | None = None,
    late_rounds: int = 2,
    **codecs: str,
) -> Iterator[Server]:
    settings = link_settings(
        federation_rejoin_seconds=0.0, federation_late_rounds=late_rounds, federation_rounds=NUM_ROUNDS, **codecs
    )
    with fleet_with(diary, settings) as fleet:
        yield Server(fleet, settings, first, state or toy_state(), memory or {})


@contextmanager
def joined(server: Server, *names: str) -> Iterator[list[BareNode]]:
    nodes = [BareNode(server.fleet.port) for _ in names]
    try:
        for name, node in zip(names, nodes, strict=True):
            node.say(pb.FromNode(hello=hello(name, shard=SHARDS[name])))
            node.hear("welcome")
        yield nodes
    finally:
        for node in nodes:
            node.__exit__()


def update(task: str, value: float) -> pb.FromNode:
    shard = SHARDS[task.rpartition("/")[2]]
    return pb.FromNode(update=to_update(Message(update_of(toy_state(value), shard), reply_to=task_message()), task))


def owed(task: str, value: float) -> pb.Owed:
    """What a node hears that vanished from a round whose model was ``value``."""
    return pb.Owed(task=task, model=model_digest(pack(to_record(toy_state(value)))))


def value_of(done: Round) -> float:
    return float(done.state["bias"][0])


def verdicts(reports: Sequence[NodeReport]) -> list[tuple[str, str, str]]:
    return [(report.task, report.verdict, report.reason) for report in reports]


def lines(done: Round) -> list[dict[str, Any]]:
    """What the ledger says of a round."""
    return [report.ledger_record() for report in done.reports]


def vanish_in_round_1(server: Server, a: BareNode) -> Round:
    """Node a delivers 2.0, b leaves without a word; the model was 0.0."""
    with joined(server, "b") as (b,):
        first = server.round()
        b.hear("task")
        a.hear("task")
        a.say(update("run/1/a", 2.0))
    return first.result(PATIENCE_SECONDS)


def test_what_comes_late_is_moved_to_the_model_of_now_and_weighs_less(diary: Diary) -> None:
    with served(diary) as server, joined(server, "a") as (a,):
        first = vanish_in_round_1(server, a)
        assert verdicts(first.reports) == [("run/1/a", "accepted", "")]
        assert [(each.task, each.verdict) for each in first.owed] == [("run/1/b", "expired")]
        assert value_of(first) == 2.0

        second = server.round()
        a.hear("task")
        with joined(server, "b") as (b,):
            assert b.hear("owed") == owed("run/1/b", 0.0)
            b.say(update("run/1/b", 3.0))
            b.say(update("run/1/b", 9.0))
            assert b.hear("verdict").reason == IN_ALREADY
            a.say(update("run/2/a", 4.0))
            done = second.result(PATIENCE_SECONDS)
            b.say(update("run/1/b", 9.0))
            assert b.hear("verdict").reason == NOT_OPEN
        late, fresh = sorted(done.reports, key=lambda report: report.round)
        assert (late.task, late.round, late.judged, late.verdict, late.examples) == ("run/1/b", 1, 2, "accepted", 100)
        assert (fresh.task, fresh.round, fresh.ledger_record()["judged"]) == ("run/2/a", 2, 2)
        assert value_of(done) == pytest.approx((4.0 + HALF * (2.0 + 3.0)) / (1 + HALF))
        assert (done.num_nodes, done.num_late, done.num_expired, done.owed) == (2, 1, 0, ())
        assert done.share_of_data == pytest.approx(200 / 300)


def test_a_late_change_is_one_of_the_model_that_its_task_came_with(diary: Diary) -> None:
    """The model is 1.0001, of which nodes hear 1.0; they answer with what changed."""

    def change(task: str, value: float) -> pb.FromNode:
        said = update(task, 0.0)
        said.update.weights.CopyFrom(pack(to_encoded(toy_state(value), by_name("int8", 1.0))))
        return said

    served_so = served(diary, state=toy_state(1.0001), link_codec="int8", link_broadcast_codec="float16")
    with served_so as server, joined(server, "a") as (a,):
        with joined(server, "b") as (b,):
            first = server.round()
            sent = b.hear("task").weights
            a.hear("task")
            a.say(change("run/1/a", 1.0))
        assert value_of(first.result(PATIENCE_SECONDS)) == pytest.approx(2.0001)
        second = server.round()
        a.hear("task")
        with joined(server, "b") as (b,):
            assert sent.codec == "float16"
            assert b.hear("owed") == pb.Owed(task="run/1/b", model=model_digest(sent))
            b.say(change("run/1/b", 2.0))
            b.say(change("run/1/b", 2.0))
            assert b.hear("verdict").reason == IN_ALREADY  # so the first of the two has come
            a.say(change("run/2/a", 0.0))
            done = second.result(PATIENCE_SECONDS)
        assert value_of(done) == pytest.approx(2.0001 + HALF * 2.0 / (1 + HALF))


def test_a_node_that_delivers_anew_is_not_counted_twice(diary: Diary) -> None:
    with served(diary) as server, joined(server, "a") as (a,):
        vanish_in_round_1(server, a)
        with joined(server, "b") as (b,):
            b.hear("owed")
            b.say(update("run/1/b", 3.0))
            second = server.round()
            for node, name in ((a, "a"), (b, "b")):
                assert node.hear("task").task == f"run/2/{name}"
                node.say(update(f"run/2/{name}", 4.0 if name == "a" else 6.0))
            done = second.result(PATIENCE_SECONDS)
    assert value_of(done) == 5.0
    late = done.reports[-1]
    assert (late.task, late.verdict) == ("run/1/b", "expired")
    assert late.reason.endswith("; it came late, and round 2 has another update of this node or shard")
    assert (done.num_nodes, done.num_late, done.num_expired) == (2, 0, 1)


def test_what_never_comes_expires_two_rounds_later(diary: Diary) -> None:
    with served(diary) as server, joined(server, "a") as (a,):
        vanish_in_round_1(server, a)
        for number in (2, 3):
            done = server.round()
            a.hear("task")
            a.say(update(f"run/{number}/a", 10.0 + number))
            expired = [report for report in done.result(PATIENCE_SECONDS).reports if report.verdict == "expired"]
            assert len(expired) == (number == 3)
        assert (expired[0].task, expired[0].round, expired[0].judged) == ("run/1/b", 1, 3)
        assert expired[0].reason.endswith("and it was not back within 0 s, nor in 2 more rounds")
        assert server.late.memory() == {}
        with joined(server, "b") as (b,):
            b.say(update("run/1/b", 3.0))
            assert b.hear("verdict").reason == NOT_OPEN


def test_without_late_rounds_a_task_expires_with_its_round(diary: Diary) -> None:
    with served(diary, late_rounds=0) as server, joined(server, "a") as (a,):
        done = vanish_in_round_1(server, a)
    assert [(report.task, report.verdict) for report in done.reports] == [
        ("run/1/a", "accepted"),
        ("run/1/b", "expired"),
    ]
    assert done.owed == ()


def test_only_the_node_that_owes_may_pay_and_what_it_pays_is_screened(diary: Diary) -> None:
    with served(diary) as server, joined(server, "a", "c") as (a, c):
        with joined(server, "b") as (b,):
            first = server.round()
            for node in (a, b, c):
                node.hear("task")
            a.say(update("run/1/a", 2.0))
            c.say(update("run/1/c", 2.0))
        first.result(PATIENCE_SECONDS)
        second = server.round()
        a.hear("task")
        c.hear("task")
        c.say(update("run/1/b", 9.0))
        assert c.hear("verdict").reason == NOT_OPEN
        with joined(server, "b") as (b,):
            b.hear("owed")
            b.say(update("run/1/b", math.nan))
            b.say(update("run/1/b", 3.0))
            assert b.hear("verdict").reason == IN_ALREADY
            a.say(update("run/2/a", 4.0))
            c.say(update("run/2/c", 4.5))
            done = second.result(PATIENCE_SECONDS)
    (late,) = [report for report in done.reports if report.round == 1]
    assert (late.task, late.verdict, late.is_fault) == ("run/1/b", "rejected", True)
    assert late.reason == "weight holds values that are not finite"
    assert value_of(done) == 4.25


def test_a_node_may_go_on_after_the_deadline_and_is_free_once_it_has_delivered(diary: Diary) -> None:
    settings = link_settings(federation_rounds=NUM_ROUNDS)
    with fleet_with(diary, settings) as fleet:
        fleet.owe([])
        server = Server.__new__(Server)
        server.fleet = fleet
        with joined(server, "a") as (a,), ThreadPoolExecutor(1) as aside:
            message = task_message(Node(fleet.nodes()[0].node_id, "a", 0), toy_state())
            answers = aside.submit(list, fleet.exchange(Tasks("run/1", [message], 0.3)))
            a.hear("task")
            a.say(pb.FromNode(progress=pb.Progress(task="run/1/a", fraction=0.5)))
            assert answers.result(PATIENCE_SECONDS)[0].reason == "no update within 0.3 s"
            assert fleet.nodes() == []
            a.say(update("run/1/a", 2.0))
            until(lambda: len(fleet.nodes()) == 1)
            assert set(fleet.late()) == {"run/1/a"}
            assert fleet.late() == {}


def test_whatever_happens_each_task_has_one_verdict_and_no_update_counts_twice(diary: Diary) -> None:
    """A node vanishes, pays late and twice; the server is killed, and the round that it was in is done again."""
    ledger: list[dict[str, Any]] = []
    with served(diary) as server, joined(server, "a") as (a,):
        first = vanish_in_round_1(server, a)
        ledger += lines(first)
        saved = server.late.memory()
        with joined(server, "b") as (b,):
            b.hear("owed")
            b.say(update("run/1/b", 3.0))  # it waits for an average that this server does not live to see
            b.say(update("run/1/b", 3.0))
            assert b.hear("verdict").reason == IN_ALREADY

    with served(diary, 2, first.state, saved) as server, joined(server, "a", "b") as (a, b):
        assert b.hear("owed") == owed("run/1/b", 0.0)
        b.say(update("run/1/b", 3.0))
        b.say(update("run/1/b", 3.0))
        assert b.hear("verdict").reason == IN_ALREADY
        second = server.round()
        a.hear("task")
        b.hear("task")
        a.say(update("run/2/a", 4.0))
        b.__exit__()
        done = second.result(PATIENCE_SECONDS)
        ledger += lines(done)
        assert value_of(done) == pytest.approx((4.0 + HALF * (2.0 + 3.0)) / (1 + HALF))
        for number in range(3, NUM_ROUNDS + 1):
            done_later = server.round()
            a.hear("task")
            if number == NUM_ROUNDS:
                a.__exit__()
            else:
                a.say(update(f"run/{number}/a", 10.0 + number))
            ledger += lines(done_later.result(PATIENCE_SECONDS))
        assert server.late.unpaid() == ()

    issued = ["run/1/a", "run/1/b", "run/2/a", "run/2/b", *(f"run/{number}/a" for number in range(3, NUM_ROUNDS + 1))]
    assert Counter(line["task"] for line in ledger) == Counter(issued)
    accepted = [line["sha256"] for line in ledger if line["verdict"] == "accepted"]
    assert len(accepted) == len(set(accepted)) == 6
    assert [(line["task"], line["judged"]) for line in ledger if line["verdict"] == "expired"] == [
        ("run/2/b", 4),
        ("run/6/a", 6),
    ]
