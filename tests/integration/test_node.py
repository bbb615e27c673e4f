"""Rule: a node joins, trains when asked, drops what is no longer wanted, sends the same update for the same task."""

import re
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict

from client.discovery import Place
from client.node import Stopped
from client.threads import Threads
from common import fleet_pb2 as pb
from common import mnist, models, shards
from common.arrays import to_record
from common.errors import RunFailed, UsageError
from common.records import task_config
from common.settings import Settings
from server.fleet import Fleet
from server.grids import Answer, Node, Tasks, Verdict
from server.link.roster import node_id
from tests.link_twins import PATIENCE_SECONDS, BareNode, Diary, fleet_with, hello, link_settings, real_node, until

pytestmark = pytest.mark.usefixtures("one_thread")
A = Node(node_id("a"), "a", 0)
MODEL_BYTES = 61_706 * 4


class Living:
    """A real node that lives beside the test, and the lines it told."""

    def __init__(self, fleet: Fleet, said: pb.Hello, state: Path | None = None, threads: Threads | None = None) -> None:
        self.told: list[str] = []
        self.stopped = False
        self._pool = ThreadPoolExecutor(1)
        node = real_node(fleet, said, self.told, lambda: self.stopped, state=state)
        node.threads = threads
        self.end: Future[None] = self._pool.submit(node.live)

    def wait(self, line: str) -> None:
        until(lambda: line in self.told, self.told)


@contextmanager
def living(fleet: Fleet, state: Path | None = None, **holds: int) -> Iterator[Living]:
    node = Living(fleet, hello("a", **holds), state)
    try:
        yield node
    finally:
        node.stopped = True
        node.end.exception(PATIENCE_SECONDS)


@pytest.fixture
def settings() -> Settings:
    return link_settings(data_num_shards=600)


@pytest.fixture
def fleet(diary: Diary, settings: Settings) -> Iterator[Fleet]:
    with fleet_with(diary, settings, MODEL_BYTES) as fleet:
        yield fleet


def content(settings: Settings) -> RecordDict:
    """A task for LeNet5."""
    parts = shards.partition(mnist.load_labels("train"), settings.data, settings.run.seed)
    config = task_config(settings, "run", tuple(shards.digest(part) for part in parts))
    config["server-round"] = 1
    return RecordDict({"arrays": to_record(models.initial_state("lenet5", 1)), "config": config})


def ask(fleet: Fleet, task: RecordDict, round_name: str = "run/1", seconds: float = PATIENCE_SECONDS) -> Answer:
    (answer,) = fleet.exchange(Tasks(round_name, [Message(task, A.node_id, "train")], seconds))
    return answer


def test_a_node_says_what_it_does(fleet: Fleet, diary: Diary, settings: Settings) -> None:
    with living(fleet, shard=0) as node:
        diary.wait("a joined with 0")
        answer = ask(fleet, content(settings))
        assert answer.reply is not None
        metrics = answer.reply.content.metric_records["metrics"]
        assert (metrics["num-examples"], metrics["shard"], metrics["threads"]) == (100, 0, 1)
        fleet.settle([Verdict(A.node_id, "run/1/a", "rejected", "far away")])
        node.wait("round 1: rejected: far away")
    first, second, third, _ = node.told
    assert first == "the test names it"
    assert second == f"joined 127.0.0.1:{fleet.port} as a with shard 0 of 600"
    assert third.startswith("round 1: trained on 100 images in ")


def test_a_node_whose_training_became_slow_looks_again_how_many_threads_pay(
    fleet: Fleet, diary: Diary, settings: Settings
) -> None:
    seconds = {1: 1.0, 2: 2.0}
    threads = Threads(2, lambda count, _: seconds[count])
    threads.finished("run", 1e-9, 1)  # nothing can be as quick as this fit
    seconds[2] = 0.5
    said = hello("a", shard=0)
    node = Living(fleet, said, threads=threads)
    try:
        diary.wait("a joined with 0")
        ask(fleet, content(settings))
        until(lambda: any(line.endswith("as slow: from 1 thread to 2") for line in node.told), node.told)
        assert (threads.count, said.machine.threads) == (2, 2)  # what the next fit takes
    finally:
        node.stopped = True
        node.end.exception(PATIENCE_SECONDS)


def test_the_same_task_again_is_answered_with_the_same_bytes(fleet: Fleet, diary: Diary, settings: Settings) -> None:
    task = content(settings)
    with living(fleet, shard=0) as node:
        diary.wait("a joined with 0")
        first, again = ask(fleet, task), ask(fleet, task)
        other = ask(fleet, task, "run/2")
    assert node.told.count("the server asks again for the last update: sending the same bytes") == 1
    assert first.reply is not None
    assert again.reply is not None
    assert other.reply is not None
    replies = (first.reply, again.reply, other.reply)
    seconds = [reply.content.metric_records["metrics"]["fit-seconds"] for reply in replies]
    assert seconds[0] == seconds[1] != seconds[2]


def test_the_same_task_after_a_restart_is_answered_with_the_same_bytes(
    fleet: Fleet, diary: Diary, settings: Settings, tmp_path: Path
) -> None:
    task, answers = content(settings), []
    for times in (1, 2):
        with living(fleet, tmp_path, shard=0) as node:
            diary.wait("a joined with 0", times)
            answers.append(ask(fleet, task))
        diary.wait("a left: it was stopped", times)
    assert "the server asks again for the last update: sending the same bytes" in node.told
    first, again = (answer.reply.content.metric_records["metrics"] for answer in answers if answer.reply)
    assert dict(first) == dict(again)  # with the seconds that the fit took
    assert answers[0].bytes_up == answers[1].bytes_up


def test_a_node_whose_link_breaks_finishes_and_delivers_when_it_is_back(diary: Diary, tmp_path: Path) -> None:
    settings = link_settings(data_num_shards=600, training_local_epochs=30, federation_rejoin_seconds=0)
    with fleet_with(diary, settings, MODEL_BYTES) as fleet, living(fleet, tmp_path, shard=0) as node:
        fleet.owe([])
        diary.wait("a joined with 0")
        with ThreadPoolExecutor(1) as aside:
            answer = aside.submit(ask, fleet, content(settings))
            until(lambda: any("%" in line for line in diary.lines))
            cut(fleet)
            assert answer.result(PATIENCE_SECONDS).reason == "it was cut, and it was not back within 0 s"
        node.wait("round 1: the server still takes the update: sending it")
        came: dict[str, Answer] = {}
        until(lambda: bool(came.update(fleet.late()) or came))
    assert list(came) == ["run/1/a"]
    reply = came["run/1/a"].reply
    assert reply is not None
    assert reply.content.metric_records["metrics"]["num-examples"] == 100
    assert sum(line.startswith("round 1: trained on 100 images") for line in node.told) == 1


def cut(fleet: Fleet) -> None:
    """End the link of a node, without a word to it."""

    def end() -> None:
        fleet._streams.sessions[A.node_id].end("it was cut")

    fleet._loop.call_soon_threadsafe(end)


def test_a_task_that_is_cancelled_is_dropped_and_the_next_one_done(
    fleet: Fleet, diary: Diary, settings: Settings
) -> None:
    endless = link_settings(data_num_shards=600, training_local_epochs=100_000)
    with living(fleet, shard=0) as node:
        diary.wait("a joined with 0")
        answer = ask(fleet, content(endless), seconds=0.5)
        assert (answer.reply, answer.reason) == (None, "no update within 0.5 s")
        node.wait("round 1: dropped, the server no longer waits for it")
        until(lambda: fleet.nodes() == [A])
        assert ask(fleet, content(settings), "run/2").reply is not None


def test_a_shard_that_is_divided_otherwise_is_an_error_and_the_node_stays(
    fleet: Fleet, diary: Diary, settings: Settings
) -> None:
    task = content(settings)
    task.config_records["config"]["shard-digests"] = ["0" * 16] * 600
    with living(fleet, shard=0) as node:
        diary.wait("a joined with 0")
        answer = ask(fleet, task)
        assert answer.reply is not None
        reason = answer.reply.error.reason or ""
        assert reason.startswith("this machine divides the training set otherwise than the server: shard 0 is ")
        assert node.told[-1] == f"round 1: {reason}"
        assert ask(fleet, content(settings), "run/2").reply is not None


def test_a_node_leaves_when_it_is_told_to(fleet: Fleet, diary: Diary) -> None:
    with living(fleet, shard=0) as node:
        diary.wait("a joined with 0")
        node.stopped = True
        with pytest.raises(Stopped):
            node.end.result(PATIENCE_SECONDS)
    diary.wait("a left: it was stopped")


def test_a_node_leaves_in_the_middle_of_its_training(fleet: Fleet, diary: Diary) -> None:
    endless = content(link_settings(data_num_shards=600, training_local_epochs=100_000))
    with living(fleet, shard=0) as node, ThreadPoolExecutor(1) as aside:
        diary.wait("a joined with 0")
        aside.submit(ask, fleet, endless, seconds=1.0)
        until(lambda: any("%" in line for line in diary.lines))
        node.stopped = True
        with pytest.raises(Stopped):
            node.end.result(PATIENCE_SECONDS)
    diary.wait("a left: it was stopped")


def test_a_refused_node_says_why(fleet: Fleet) -> None:
    with living(fleet, shard=600) as node, pytest.raises(UsageError) as error:
        node.end.result(PATIENCE_SECONDS)
    assert str(error.value) == (
        "the server refuses this node: shard 600 does not exist: the training set is divided into 600 shards, 0 to 599"
    )


def test_a_node_that_is_refused_for_now_tries_again(diary: Diary) -> None:
    settings = link_settings(data_num_shards=1)
    with fleet_with(diary, settings, MODEL_BYTES) as fleet, BareNode(fleet.port) as holder:
        holder.say(pb.FromNode(hello=hello("holder", shard=0)))
        holder.hear("welcome")
        with living(fleet, any_shard=True) as node:
            reason = "every shard is held by another node; trying again"
            until(lambda: any(line.endswith(reason) for line in node.told), node.told)


@pytest.mark.parametrize("run_done", [True, False])
def test_once_is_over_with_the_run(diary: Diary, settings: Settings, run_done: bool) -> None:
    with fleet_with(diary, settings, MODEL_BYTES) as fleet:
        node = Living(fleet, hello("a", shard=0))
        diary.wait("a joined with 0")
        fleet.say_farewell("that was it", run_done)
    if run_done:
        node.end.result(PATIENCE_SECONDS)
    else:
        with pytest.raises(RunFailed, match="the run ended before it was done: that was it"):
            node.end.result(PATIENCE_SECONDS)
    assert node.told[-1] == "the server says: that was it"


def test_a_server_that_speaks_in_lines_and_escapes_has_one_line(diary: Diary, settings: Settings) -> None:
    with fleet_with(diary, settings, MODEL_BYTES) as fleet:
        node = Living(fleet, hello("a", shard=0))
        diary.wait("a joined with 0")
        fleet.say_farewell("that\nwas \x1b[2Jit", run_done=False)
    with pytest.raises(RunFailed) as error:
        node.end.result(PATIENCE_SECONDS)
    assert str(error.value) == "the run ended before it was done: that was ?[2Jit"


def test_an_update_that_the_server_would_not_take_is_an_error_that_says_so(diary: Diary, settings: Settings) -> None:
    limit = 2 * 1000 + 64 * 1024
    with fleet_with(diary, settings, model_bytes=1000) as fleet, living(fleet, shard=0):
        diary.wait("a joined with 0")
        answer = ask(fleet, content(settings))
    assert answer.reply is not None
    reason = str(answer.reply.error.reason)
    assert re.fullmatch(rf"the update has 24\d,\d{{3}} bytes, this server takes at most {limit:,}", reason)


def test_a_node_that_is_asked_to_stop_does_not_wait_for_a_server_that_says_nothing(fleet: Fleet) -> None:
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = real_node(fleet, hello("a", shard=0), told, lambda: True)
        node.find = lambda: Place("127.0.0.1", silent.getsockname()[1], "it only listens", "flag")
        with pytest.raises(Stopped):
            node.live()
    assert told == ["it only listens"]  # and no word of an answer that did not come
