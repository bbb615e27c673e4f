"""Rule: a task whose node is lost or late ends with the round, and never a moment later; its node is told."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from client.link import MAX_CANCELLED, Link
from common import fleet_pb2 as pb
from server.fleet import Fleet
from server.grids import ENOUGH, Node, Reserve, Tasks
from server.link.roster import node_id
from tests.link_twins import MODEL_BYTES, PATIENCE_SECONDS, Diary, fleet_with, hello, link_settings, until
from tests.played_nodes import A, B, bias, exchange, joined, tasks_for, update
from tests.scripted_grid import task_message, toy_state

NOT_OPEN = "this task is not open (any more)"


def test_a_node_that_is_back_in_the_round_gets_its_task_again(
    fleet: Fleet, diary: Diary, aside: ThreadPoolExecutor
) -> None:
    with joined(fleet, "a", 0) as before:
        answers = exchange(aside, fleet, [A])
        first = before.hear("task")
    diary.wait("a left: it")
    with joined(fleet, "a", 0) as back:
        again = back.hear("task")
        assert (again.task, again.weights) == (first.task, first.weights)
        assert again.deadline_seconds < first.deadline_seconds
        back.say(update("run/1/a", 2.0))
        (answer,) = answers.result(PATIENCE_SECONDS)
        assert bias(answer) == 2.0
        assert answer.bytes_down >= 2 * MODEL_BYTES


def test_a_node_that_joins_anew_before_its_old_link_is_missed_gets_its_task_again(
    fleet: Fleet, aside: ThreadPoolExecutor
) -> None:
    with joined(fleet, "a", 0) as former:
        answers = exchange(aside, fleet, [A])
        former.hear("task")
        with joined(fleet, "a", 0) as now:
            assert now.hear("task").task == "run/1/a"
            now.say(update("run/1/a", 2.0))
            assert bias(answers.result(PATIENCE_SECONDS)[0]) == 2.0


def test_a_node_that_is_gone_for_good_expires(diary: Diary, aside: ThreadPoolExecutor) -> None:
    with fleet_with(diary, link_settings(federation_rejoin_seconds=0.2)) as fleet:
        with joined(fleet, "a", 0) as node:
            answers = exchange(aside, fleet, [A])
            node.hear("task")
        (answer,) = answers.result(PATIENCE_SECONDS)
        assert answer.reply is None
        assert answer.reason.endswith(", and it was not back within 0.2 s")


def test_a_node_that_said_farewell_expires_with_its_word(diary: Diary, aside: ThreadPoolExecutor) -> None:
    with fleet_with(diary, link_settings(federation_rejoin_seconds=0)) as fleet, joined(fleet, "a", 0) as node:
        answers = exchange(aside, fleet, [A])
        node.hear("task")
        node.say(pb.FromNode(farewell=pb.Farewell(reason="it was stopped")))
        (answer,) = answers.result(PATIENCE_SECONDS)
        assert answer.reason == "it was stopped, and it was not back within 0 s"


def test_a_node_that_left_before_the_round_expires(diary: Diary, aside: ThreadPoolExecutor) -> None:
    with fleet_with(diary, link_settings(federation_rejoin_seconds=0)) as fleet:
        with joined(fleet, "a", 0):
            pass
        diary.wait("a left: it")
        (answer,) = exchange(aside, fleet, [A]).result(PATIENCE_SECONDS)
        assert (answer.reason, answer.bytes_down) == ("it left, and it was not back within 0 s", 0)


def test_who_is_late_expires_is_told_and_gets_no_work_until_free(fleet: Fleet, aside: ThreadPoolExecutor) -> None:
    with joined(fleet, "a", 0) as punctual, joined(fleet, "b", 1) as late:
        answers = exchange(aside, fleet, [A, B], seconds=2.0)
        assert [node.hear("task").task for node in (punctual, late)] == ["run/1/a", "run/1/b"]
        late.say(pb.FromNode(progress=pb.Progress(task="run/1/b", fraction=0.1)))
        punctual.say(update("run/1/a", 2.0))
        first, second = answers.result(PATIENCE_SECONDS)
        assert bias(first) == 2.0
        assert (second.node_id, second.reply, second.reason) == (B.node_id, None, "no update within 2 s")
        assert late.hear("cancel") == pb.Cancel(task="run/1/b", reason="the round's time is up")
        assert fleet.nodes() == [A]

        late.say(pb.FromNode(progress=pb.Progress(task="run/1/b", fraction=0.2)))  # it hangs in the old task
        late.say(update("run/1/x", 2.0))  # any update says that it works no more
        assert late.hear("verdict").reason == NOT_OPEN
        assert fleet.nodes() == [A, B]


def test_a_node_that_drops_a_cancelled_task_is_free(
    fleet: Fleet, aside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.link.QUIET_SECONDS", PATIENCE_SECONDS)  # though the server never heard that it began
    with Link("127.0.0.1", fleet.port, hello("a", shard=0)) as link:
        assert isinstance(link.receive(PATIENCE_SECONDS), pb.Welcome)
        answers = exchange(aside, fleet, [A], seconds=0.3)
        assert isinstance(link.receive(PATIENCE_SECONDS), pb.Task)
        assert answers.result(PATIENCE_SECONDS)[0].reason == "no update within 0.3 s"
        until(lambda: "run/1/a" in link.cancelled)
        assert (fleet.nodes(), fleet.busy()) == ([], [A])
        link.finish()
        until(lambda: fleet.nodes() == [A])
        assert fleet.busy() == []


def test_a_node_remembers_the_last_of_its_cancelled_tasks_alone(fleet: Fleet) -> None:
    with Link("127.0.0.1", fleet.port, hello("a", shard=0)) as link:
        assert isinstance(link.receive(PATIENCE_SECONDS), pb.Welcome)
        for number in range(MAX_CANCELLED + 2):
            list(fleet.exchange(Tasks(f"run/{number}", tasks_for([A]), 0.01)))
        names = tuple(f"run/{number}/a" for number in range(2, MAX_CANCELLED + 2))
        until(lambda: link.cancelled == names)


def test_a_node_whose_task_is_still_on_its_way_is_not_asked_again(fleet: Fleet, aside: ThreadPoolExecutor) -> None:
    fleet.owe([])  # from now on updates may be late
    with joined(fleet, "a", 0) as slow, joined(fleet, "b", 1) as quick:
        answers = exchange(aside, fleet, [A, B], seconds=0.3)
        quick.hear("task")
        quick.say(update("run/1/b", 2.0, 1))
        assert [answer.reply is not None for answer in answers.result(PATIENCE_SECONDS)] == [False, True]
        slow.say(pb.FromNode(progress=pb.Progress()))  # it has not had its task yet, so it says that it is idle
        slow.say(update("run/0/a", 1.0))
        assert slow.hear("task").task == "run/1/a"
        assert slow.hear("verdict").reason == NOT_OPEN  # so the server has heard both
        assert (fleet.nodes(), fleet.busy()) == ([B], [A])
        slow.say(update("run/1/a", 2.0))  # without a word that it has taken the task
        until(lambda: fleet.nodes() == [A, B])
        assert list(fleet.late()) == ["run/1/a"]


def test_a_late_update_is_not_counted_in_the_next_round(fleet: Fleet, aside: ThreadPoolExecutor) -> None:
    with joined(fleet, "a", 0) as node:
        exchange(aside, fleet, [A], seconds=0.05).result(PATIENCE_SECONDS)
        node.hear("task")
        node.hear("cancel")
        shared = [task_message(A, toy_state(1.0))]
        answers = aside.submit(list, fleet.exchange(Tasks("run/2", shared, 60.0)))
        assert node.hear("task").task == "run/2/a"
        node.say(update("run/1/a", 9.0))
        assert node.hear("verdict").reason == NOT_OPEN
        node.say(update("run/2/a", 2.0))
        assert bias(answers.result(PATIENCE_SECONDS)[0]) == 2.0


def test_enough_updates_end_the_round_and_cancel_the_rest(
    fleet: Fleet, diary: Diary, aside: ThreadPoolExecutor
) -> None:
    with joined(fleet, "a", 0) as first, joined(fleet, "b", 1) as second:
        answers = aside.submit(list, fleet.exchange(Tasks("run/1", tasks_for([A, B]), 60.0, num_enough=1)))
        first.hear("task")
        second.hear("task")
        first.say(pb.FromNode(update=pb.Update(task="run/1/a", error="out of memory")))
        diary.wait("a delivered")  # what comes on two streams comes in any order
        second.say(update("run/1/b", 2.0, 1))
        assert {answer.reply is not None for answer in answers.result(PATIENCE_SECONDS)} == {True}  # an error is none

    with joined(fleet, "a", 0) as first, joined(fleet, "b", 1) as second:
        answers = aside.submit(list, fleet.exchange(Tasks("run/1", tasks_for([A, B]), 60.0, num_enough=1)))
        first.hear("task")
        second.hear("task")
        second.say(update("run/1/b", 2.0, 1))
        found = {answer.node_id: answer for answer in answers.result(PATIENCE_SECONDS)}
        assert (found[A.node_id].reply, found[A.node_id].reason) == (None, ENOUGH)
        assert bias(found[B.node_id]) == 2.0
        assert first.hear("cancel").reason == ENOUGH


def test_a_free_node_gets_the_task_of_one_that_is_gone_for_good(diary: Diary, aside: ThreadPoolExecutor) -> None:
    with fleet_with(diary, link_settings(federation_rejoin_seconds=0.0)) as fleet, joined(fleet, "b", 1) as second:
        with joined(fleet, "a", 0) as first:
            told: list[int] = []
            reserve = Reserve(tasks_for([Node(node_id("c"), "c", 2), B]), told.append)
            answers = aside.submit(list, fleet.exchange(Tasks("run/1", tasks_for([A]), 60.0, reserve=reserve)))
            first.hear("task")
        assert second.hear("task").task == "run/1/b"  # c is not here
        assert told == [B.node_id]  # before b heard of it
        second.say(update("run/1/b", 2.0, 1))
        lost, found = answers.result(PATIENCE_SECONDS)
        assert (lost.reply, bias(found)) == (None, 2.0)
