"""Rule: a task is issued at least once, an update counted at most once, and every task ends with one answer."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from client.link import QUIET_SECONDS, Link
from common import fleet_pb2 as pb
from common.arrays import to_record
from common.records import OWN
from common.wire import from_task, to_task
from server.fleet import Fleet
from server.grids import Seen, Tasks, Verdict
from server.link.streams import OVERSIZE_BYTES
from tests.link_twins import MODEL_BYTES, PATIENCE_SECONDS, Diary, fleet_with, hello, link_settings
from tests.played_nodes import A, B, bias, bias_of, exchange, joined, update
from tests.scripted_grid import toy_state

NOT_OPEN = "this task is not open (any more)"
IN_ALREADY = "an update for it is in already"


def test_task_progress_update_verdict(fleet: Fleet, diary: Diary, aside: ThreadPoolExecutor) -> None:
    with joined(fleet, "a", 0) as node:
        answers = exchange(aside, fleet, [A])
        task = node.hear("task")
        assert (task.task, task.type) == ("run/1/a", "train")
        assert 0 < task.deadline_seconds <= 60
        assert len(task.weights.buffer) == MODEL_BYTES
        node.say(pb.FromNode(progress=pb.Progress(task="run/1/a", fraction=0.25)))
        diary.wait("a 25%")
        node.say(update("run/1/a", 2.0))
        (answer,) = answers.result(PATIENCE_SECONDS)
        assert (answer.node_id, answer.reason, bias(answer)) == (A.node_id, "", 2.0)
        assert answer.bytes_up == len(update("run/1/a", 2.0).SerializeToString())
        assert answer.bytes_down >= MODEL_BYTES
        assert answer.seconds > 0
        fleet.settle([Verdict(A.node_id, "run/1/a", "rejected", "too long"), Verdict(9, "run/1/x", "expired", "")])
        assert node.hear("verdict") == pb.Verdict(task="run/1/a", verdict="rejected", reason="too long")
    diary.wait("a left")
    assert diary.lines[:3] == ["a joined with 0", "a 25%", "a delivered"]


def test_an_answer_knows_when_its_node_took_the_task_and_was_done(
    fleet: Fleet, diary: Diary, aside: ThreadPoolExecutor
) -> None:
    start = time.monotonic()
    with joined(fleet, "a", 0) as node, joined(fleet, "b", 1) as silent:
        answers = exchange(aside, fleet, [A, B])
        node.hear("task")
        silent.hear("task")
        node.say(pb.FromNode(progress=pb.Progress(task="run/1/a")))
        diary.wait("a 0%")
        shown = time.monotonic()
        node.say(pb.FromNode(progress=pb.Progress()))
        node.say(update("run/1/a", 2.0))
        silent.say(update("run/1/b", 3.0, shard=1))  # says nothing but its update
        seen = {answer.node_id: answer.seen for answer in answers.result(PATIENCE_SECONDS)}
    told, untold = seen[A.node_id], seen[B.node_id]
    assert start <= told.taken_at <= shown <= told.done_at <= told.ended_at <= time.monotonic()
    assert [math.isnan(at) for at in (untold.taken_at, untold.done_at, untold.ended_at)] == [True, True, False]


@pytest.mark.parametrize("ago", [1e300, -1e300, float("inf")])
def test_no_word_of_a_node_puts_a_moment_before_its_task(fleet: Fleet, aside: ThreadPoolExecutor, ago: float) -> None:
    start = time.monotonic()
    with joined(fleet, "a", 0) as node:
        answers = exchange(aside, fleet, [A])
        node.hear("task")
        node.say(pb.FromNode(progress=pb.Progress(task="run/1/a", since_seconds=ago)))
        node.say(update("run/1/a", 2.0))
        (answer,) = answers.result(PATIENCE_SECONDS)
    assert start <= answer.seen.taken_at <= answer.seen.ended_at


def delivered_over(fleet: Fleet, aside: ThreadPoolExecutor, before: Callable[[], object] = lambda: None) -> Seen:
    """What the server saw of a task that a client's own link took, and finished with an update after ``before``."""
    with Link("127.0.0.1", fleet.port, hello("a", shard=0)) as link:
        assert isinstance(link.receive(PATIENCE_SECONDS), pb.Welcome)
        answers = exchange(aside, fleet, [A])
        assert isinstance(link.receive(PATIENCE_SECONDS), pb.Task)
        before()
        link.finish(update("run/1/a", 2.0))
        (answer,) = answers.result(PATIENCE_SECONDS)
    assert bias(answer) == 2.0
    return answer.seen


def test_a_node_does_not_speak_of_a_task_that_is_done_at_once(
    fleet: Fleet, diary: Diary, aside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.link.QUIET_SECONDS", PATIENCE_SECONDS)
    seen = delivered_over(fleet, aside)
    diary.wait("a delivered")
    assert "a 0%" not in diary.lines
    assert [math.isnan(at) for at in (seen.taken_at, seen.done_at, seen.ended_at)] == [True, True, False]


def test_a_node_speaks_of_a_task_that_takes_a_while_and_of_when_it_came(
    fleet: Fleet, diary: Diary, aside: ThreadPoolExecutor
) -> None:
    shown: list[float] = []

    def wait_until_shown() -> None:
        diary.wait("a 0%")
        shown.append(time.monotonic())

    seen = delivered_over(fleet, aside, wait_until_shown)
    assert seen.taken_at <= shown[0] - QUIET_SECONDS
    assert shown[0] <= seen.done_at <= seen.ended_at


def test_a_node_that_was_away_is_told_its_last_verdict_when_it_is_back(fleet: Fleet) -> None:
    fleet.settle([Verdict(A.node_id, "run/1/a", "expired", ""), Verdict(A.node_id, "run/2/a", "expired", "it left")])
    with joined(fleet, "a", 0) as node:
        assert node.hear("verdict") == pb.Verdict(task="run/2/a", verdict="expired", reason="it left")
    with joined(fleet, "a", 0) as again:
        fleet.settle([Verdict(A.node_id, "run/3/a", "accepted", "")])
        assert again.hear("verdict").task == "run/3/a"  # the one of before is not told twice


@pytest.mark.parametrize(("fraction", "shown"), [(-3.0, "a 0%"), (7.0, "a 100%")])
def test_progress_is_shown_within_its_bounds(
    fleet: Fleet, diary: Diary, aside: ThreadPoolExecutor, fraction: float, shown: str
) -> None:
    with joined(fleet, "a", 0) as node:
        answers = exchange(aside, fleet, [A])
        node.hear("task")
        node.say(pb.FromNode(progress=pb.Progress(task="run/9/somebody-else", fraction=0.5)))
        node.say(pb.FromNode(progress=pb.Progress(task="run/1/a", fraction=fraction)))
        diary.wait(shown)
        node.say(update("run/1/a", 2.0))
        answers.result(PATIENCE_SECONDS)
    diary.wait("a left")
    assert diary.lines[:3] == ["a joined with 0", shown, "a delivered"]


def test_what_is_one_nodes_own_comes_with_what_all_share_which_is_packed_once(
    fleet: Fleet, aside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[Message] = []

    def pack(message: Message) -> pb.Task:
        packed.append(message)
        return to_task(message)

    monkeypatch.setattr("server.link.assignment.to_task", pack)
    weights, config = to_record(toy_state(1.0)), ConfigRecord({"server-round": 1, "max-steps": 9})
    contents = [
        RecordDict({"arrays": weights, "config": config, OWN: ConfigRecord({"max-steps": steps})}) for steps in (3, 4)
    ]
    messages = [Message(contents[node.shard], node.node_id, "train") for node in (A, B)]
    with joined(fleet, "a", 0) as first, joined(fleet, "b", 1) as second:
        answers = aside.submit(list, fleet.exchange(Tasks("run/1", messages, 60.0)))
        for node, name, steps in ((first, "a", 3), (second, "b", 4)):
            task = node.hear("task")
            content = from_task(task, node_id=1).content
            assert dict(content.config_records["config"]) == {"server-round": 1, "max-steps": steps}
            assert bias_of(content) == 1.0
            node.say(update(task.task, 2.0, shard=steps - 3))
            assert task.task == f"run/1/{name}"
        assert len(answers.result(PATIENCE_SECONDS)) == 2
    assert len(packed) == 1


def test_an_error_is_an_answer(fleet: Fleet, aside: ThreadPoolExecutor) -> None:
    with joined(fleet, "a", 0) as node:
        answers = exchange(aside, fleet, [A])
        node.hear("task")
        node.say(pb.FromNode(update=pb.Update(task="run/1/a", error="out of memory")))
        (answer,) = answers.result(PATIENCE_SECONDS)
        assert answer.reply is not None
        assert answer.reply.error.reason == "out of memory"


def test_an_update_for_another_nodes_task_is_not_counted(fleet: Fleet, aside: ThreadPoolExecutor) -> None:
    with joined(fleet, "a", 0) as honest, joined(fleet, "b", 1) as thief:
        answers = exchange(aside, fleet, [A])
        honest.hear("task")
        thief.say(update("run/1/a", 9.0))
        assert thief.hear("verdict") == pb.Verdict(task="run/1/a", verdict="expired", reason=NOT_OPEN)
        honest.say(update("run/1/a", 2.0))
        (answer,) = answers.result(PATIENCE_SECONDS)
        assert bias(answer) == 2.0


def test_an_update_that_comes_twice_counts_once(fleet: Fleet, diary: Diary, aside: ThreadPoolExecutor) -> None:
    with joined(fleet, "a", 0) as first, joined(fleet, "b", 1) as second:
        answers = exchange(aside, fleet, [A, B])
        first.hear("task")
        second.hear("task")
        first.say(update("run/1/a", 2.0))
        first.say(update("run/1/a", 3.0))
        assert first.hear("verdict") == pb.Verdict(task="run/1/a", verdict="expired", reason=IN_ALREADY)
        second.say(update("run/1/b", 4.0, shard=1))
        found = {answer.node_id: bias(answer) for answer in answers.result(PATIENCE_SECONDS)}
        assert found == {A.node_id: 2.0, B.node_id: 4.0}
        first.say(update("run/1/a", 5.0))
        assert first.hear("verdict") == pb.Verdict(task="run/1/a", verdict="expired", reason=NOT_OPEN)
    diary.wait("a left")
    assert diary.lines.count("a delivered") == 1


def test_an_update_nobody_asked_for_is_not_counted(fleet: Fleet, diary: Diary) -> None:
    with joined(fleet, "a", 0) as node:
        node.say(update("x" * 300, 2.0))
        assert node.hear("verdict") == pb.Verdict(task="x" * 200, verdict="expired", reason=NOT_OPEN)
        assert fleet.nodes() == [A]
    diary.wait("a left")
    assert "a delivered" not in diary.lines


def test_an_oversize_update_is_an_error_that_names_size_and_limit(diary: Diary, aside: ThreadPoolExecutor) -> None:
    with fleet_with(diary, link_settings()) as fleet, joined(fleet, "a", 0) as honest, joined(fleet, "b", 1) as greedy:
        answers = exchange(aside, fleet, [A, B])
        honest.hear("task")
        greedy.hear("task")
        huge = update("run/1/b", 2.0, shard=1)
        limit = 2 * MODEL_BYTES + 64 * 1024
        huge.update.weights.buffer = bytes(limit)
        greedy.say(huge)
        honest.say(update("run/1/a", 2.0))
        first, second = answers.result(PATIENCE_SECONDS)
        assert bias(first) == 2.0
        assert second.reply is not None
        reason = f"its update has {huge.ByteSize():,} bytes, this server takes at most {limit:,}"
        assert second.reply.error.reason == reason
        assert fleet.nodes() == [A, B]


def test_a_message_beyond_all_measure_ends_its_link_alone(diary: Diary, aside: ThreadPoolExecutor) -> None:
    settings = link_settings(federation_rejoin_seconds=0)
    with fleet_with(diary, settings) as fleet, joined(fleet, "a", 0) as honest, joined(fleet, "b", 1) as greedy:
        answers = exchange(aside, fleet, [A, B])
        greedy.hear("task")
        greedy.say(bytes(2 * MODEL_BYTES + 64 * 1024 + OVERSIZE_BYTES + 1))
        honest.say(update("run/1/a", 2.0))
        first, second = answers.result(PATIENCE_SECONDS)
        assert bias(first) == 2.0
        assert second.reply is None
        assert second.reason.endswith("and it was not back within 0 s")
        assert fleet.nodes() == [A]


def test_an_update_that_cannot_be_read_is_an_error_reply(fleet: Fleet, aside: ThreadPoolExecutor) -> None:
    with joined(fleet, "a", 0) as node:
        answers = exchange(aside, fleet, [A])
        node.hear("task")
        node.say(pb.FromNode(update=pb.Update(task="run/1/a", weights=pb.Weights(codec="zip"))))
        (answer,) = answers.result(PATIENCE_SECONDS)
        assert answer.reply is not None
        assert (
            answer.reply.error.reason
            == "the update cannot be read: unknown codec 'zip', expected 'raw' or a codec's name"
        )


def test_an_exchange_with_nobody_is_over_at_once(fleet: Fleet) -> None:
    assert list(fleet.exchange(Tasks("run/1", [], 60.0))) == []
