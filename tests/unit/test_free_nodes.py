"""Rule: after its round, a node is free once it has done or dropped the task; idle before it had that says nothing."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from common import fleet_pb2 as pb
from server.link.reads import Reads
from server.link.sends import Sends
from server.link.session import Session
from tests.sessions import sessions_on
from tests.virtual_time import in_virtual_time

TASK = "run/2/n0"


class Stream:
    """A stream to a node on a slow link: what is written has gone out once ``goes`` is set."""

    def __init__(self) -> None:
        self.goes = asyncio.Event()

    async def read(self) -> None:
        await asyncio.Event().wait()

    async def write(self, _: bytes) -> None:
        await self.goes.wait()


def play(story: Callable[[Session, Stream], Coroutine[Any, Any, None]]) -> None:
    """A task is under way to the node as ``story`` begins."""

    async def told() -> None:
        stream = Stream()
        (session,) = sessions_on([stream], Sends(1), Reads(1, 1))
        serving = asyncio.ensure_future(session.run(lambda *_: ""))
        session.send(lambda: pb.ToNode(task=pb.Task(task=TASK)).SerializeToString())
        await story(session, stream)
        session.end("over")
        await serving

    in_virtual_time(told())


async def arrive(stream: Stream) -> None:
    stream.goes.set()
    await asyncio.sleep(1.0)


def test_a_node_that_may_be_late_is_free_once_it_is_done() -> None:
    async def story(session: Session, stream: Stream) -> None:
        session.work.outlasts(TASK)
        session.work.says("")
        assert not session.work.is_free, "the task is on its way"
        await arrive(stream)
        session.work.says("")
        assert not session.work.is_free, "it has gone out, which is not to say that the node has it"
        session.work.says(TASK)
        assert not session.work.is_free
        session.work.says("")
        assert session.work.is_free

    play(story)


def test_a_node_that_was_heard_to_have_the_task_is_free_when_it_is_idle() -> None:
    async def story(session: Session, stream: Stream) -> None:
        await arrive(stream)
        session.work.says(TASK)
        session.work.outlasts(TASK)
        session.work.says("")
        assert session.work.is_free

    play(story)


def test_an_update_without_a_word_before_frees_its_node_and_one_of_another_task_does_not() -> None:
    async def story(session: Session, stream: Stream) -> None:
        session.work.outlasts(TASK)
        session.work.answers("run/1/n0")
        assert not session.work.is_free
        await arrive(stream)
        session.work.answers(TASK)
        assert session.work.is_free

    play(story)


def test_a_node_that_is_told_to_drop_its_task_is_free_once_it_can_have_heard_so() -> None:
    async def story(session: Session, stream: Stream) -> None:
        session.cancel(TASK, "the round's time is up")
        await asyncio.sleep(1.0)
        session.work.says("")
        assert not session.work.is_free, "task and word are on their way"
        await arrive(stream)
        stream.goes.clear()
        session.send(pb.ToNode(verdict=pb.Verdict(task=TASK)))  # what is on its way now does not matter
        await asyncio.sleep(1.0)
        session.work.says("")
        assert session.work.is_free

    play(story)


def test_what_may_be_late_no_more_holds_its_node_no_longer() -> None:
    async def story(session: Session, stream: Stream) -> None:
        session.work.outlasts(TASK)
        await arrive(stream)
        session.work.says("")
        assert session.work.outlasting == TASK
        session.cancel(TASK, "its update would come too late")
        await asyncio.sleep(1.0)
        session.work.says("")
        assert session.work.is_free

    play(story)
