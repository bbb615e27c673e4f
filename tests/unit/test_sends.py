"""Rule: so many large messages are on their way at once and no more, and whoever waits for a turn is shown life."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from common import fleet_pb2 as pb
from server.link.reads import Reads
from server.link.sends import MAX_BYTES, MIN_AT_ONCE, Sends
from tests.sessions import BEAT_SECONDS, sessions_on
from tests.virtual_time import in_virtual_time

LARGE = MAX_BYTES // MIN_AT_ONCE  # so that just MIN_AT_ONCE of them may be on their way


class Stream:
    """A stream to a node that reads a task only when it is told to."""

    def __init__(self) -> None:
        self.reads, self.heard = asyncio.Event(), list[str]()
        self._silent = asyncio.Event()

    async def read(self) -> None:
        await self._silent.wait()

    async def write(self, raw: bytes) -> None:
        kind = pb.ToNode.FromString(raw).WhichOneof("kind")
        if kind == "task":
            await self.reads.wait()
        self.heard.append(str(kind))


class Crowd:
    """Sessions that share turns, each with a task to send; ``made`` are those whose bytes exist."""

    def __init__(self, number: int, message_bytes: int = LARGE) -> None:
        self.streams, self.made = [Stream() for _ in range(number)], list[int]()
        self.sessions = sessions_on(self.streams, Sends(message_bytes), Reads(message_bytes, number))
        self.serving = [asyncio.ensure_future(session.run(lambda *_: "")) for session in self.sessions]
        for place, session in enumerate(self.sessions):
            session.send(self._task(place))

    def _task(self, place: int) -> Callable[[], bytes]:
        def make() -> bytes:
            self.made.append(place)
            return pb.ToNode(task=pb.Task(task="run/1/n")).SerializeToString()

        return make

    async def leave(self) -> None:
        for session in self.sessions:
            session.end("over")
        await asyncio.gather(*self.serving)


def play(story: Callable[[Crowd], Coroutine[Any, Any, None]], number: int) -> None:
    async def told() -> None:
        crowd = Crowd(number)
        await asyncio.sleep(0.5)
        await story(crowd)
        await crowd.leave()

    in_virtual_time(told())


def test_a_message_is_made_when_one_before_it_has_gone() -> None:
    async def story(crowd: Crowd) -> None:
        assert crowd.made == list(range(MIN_AT_ONCE))
        crowd.streams[3].reads.set()
        await asyncio.sleep(0.5)
        assert crowd.made == [*range(MIN_AT_ONCE), MIN_AT_ONCE]
        for stream in crowd.streams:
            stream.reads.set()
        await asyncio.sleep(0.5)
        assert crowd.made == list(range(MIN_AT_ONCE + 3))
        assert [stream.heard for stream in crowd.streams] == [["task"]] * (MIN_AT_ONCE + 3)

    play(story, MIN_AT_ONCE + 3)


def test_who_waits_for_a_turn_hears_that_the_server_lives() -> None:
    async def story(crowd: Crowd) -> None:
        await asyncio.sleep(3 * BEAT_SECONDS)
        assert crowd.streams[-1].heard == ["beat"] * 3
        crowd.streams[0].reads.set()
        crowd.streams[-1].reads.set()
        await asyncio.sleep(0.5)
        assert crowd.streams[-1].heard == [*["beat"] * 3, "task"]

    play(story, MIN_AT_ONCE + 1)


def test_a_link_that_ends_gives_its_turn_on_and_one_that_waited_takes_none() -> None:
    async def story(crowd: Crowd) -> None:
        waiting, last = MIN_AT_ONCE, MIN_AT_ONCE + 1
        crowd.sessions[waiting].end("it left")
        await asyncio.sleep(0.5)
        crowd.sessions[0].end("it left")
        await asyncio.sleep(0.5)
        assert crowd.made == [*range(MIN_AT_ONCE), last]

    play(story, MIN_AT_ONCE + 2)


def test_small_messages_need_no_turn() -> None:
    async def story(crowd: Crowd) -> None:
        crowd.streams[0].reads.set()
        await asyncio.sleep(0.5)  # its turn has gone to another, who keeps it
        crowd.sessions[0].send(pb.ToNode(cancel=pb.Cancel(task="run/1/n")))
        await asyncio.sleep(0.5)
        assert crowd.streams[0].heard == ["task", "cancel"]
        assert len(crowd.made) == MIN_AT_ONCE + 1

    play(story, 2 * MIN_AT_ONCE)


def test_the_smaller_a_message_the_more_of_them_go_at_once() -> None:
    async def story() -> None:
        crowd = Crowd(MIN_AT_ONCE * 3, message_bytes=LARGE // 2)
        await asyncio.sleep(0.5)
        assert len(crowd.made) == MIN_AT_ONCE * 2
        await crowd.leave()

    in_virtual_time(story())
