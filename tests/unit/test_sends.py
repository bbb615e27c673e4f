"""Rule: so many large messages are on their way at once, who waits is shown life, and who does not read is found out.

Nobody is held up for long: a turn passes on.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from common import fleet_pb2 as pb
from server.link.reads import Reads
from server.link.sends import MAX_BYTES, MIN_AT_ONCE, TURN_SECONDS, Sends
from tests.sessions import BEAT_SECONDS, sessions_on
from tests.virtual_time import in_virtual_time

MOMENT = TURN_SECONDS / 10
LARGE = MAX_BYTES // MIN_AT_ONCE  # so that just MIN_AT_ONCE of them may be on their way


class Stream:
    """A stream to a node that reads a task only when it is told to; a deaf one reads nothing before."""

    def __init__(self) -> None:
        self.reads, self.heard, self.is_deaf = asyncio.Event(), list[str](), False
        self._silent = asyncio.Event()

    async def read(self) -> None:
        await self._silent.wait()

    async def write(self, raw: bytes) -> None:
        kind = pb.ToNode.FromString(raw).WhichOneof("kind")
        if kind == "task" or self.is_deaf:
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
        await asyncio.sleep(MOMENT)
        await story(crowd)
        await crowd.leave()

    in_virtual_time(told())


def test_a_message_is_made_when_one_before_it_has_gone() -> None:
    async def story(crowd: Crowd) -> None:
        assert crowd.made == list(range(MIN_AT_ONCE))
        crowd.streams[3].reads.set()
        await asyncio.sleep(MOMENT)
        assert crowd.made == [*range(MIN_AT_ONCE), MIN_AT_ONCE]
        for stream in crowd.streams:
            stream.reads.set()
        await asyncio.sleep(MOMENT)
        assert crowd.made == list(range(MIN_AT_ONCE + 3))
        assert [stream.heard for stream in crowd.streams] == [["task"]] * (MIN_AT_ONCE + 3)

    play(story, MIN_AT_ONCE + 3)


def test_who_waits_for_a_turn_hears_that_the_server_lives() -> None:
    async def story(crowd: Crowd) -> None:
        await asyncio.sleep(3 * BEAT_SECONDS)
        assert crowd.streams[-1].heard == ["beat"] * 3
        crowd.streams[-1].reads.set()
        await asyncio.sleep(BEAT_SECONDS)
        assert crowd.streams[-1].heard == [*["beat"] * 3, "task"]

    num_before = int(3 * BEAT_SECONDS / TURN_SECONDS + 1) * MIN_AT_ONCE  # so that its turn comes a second later
    play(story, num_before + 1)


def test_nodes_that_do_not_read_give_their_turns_on_after_a_while_and_once() -> None:
    async def story(crowd: Crowd) -> None:
        assert crowd.made == list(range(MIN_AT_ONCE))
        await asyncio.sleep(TURN_SECONDS)
        assert crowd.made == list(range(2 * MIN_AT_ONCE))
        crowd.streams[0].reads.set()  # it was slow; its turn is over, so it gives none on
        await asyncio.sleep(MOMENT)
        assert crowd.streams[0].heard == ["task"]
        assert crowd.made == list(range(2 * MIN_AT_ONCE))
        crowd.streams[MIN_AT_ONCE].reads.set()
        await asyncio.sleep(MOMENT)
        assert crowd.made == list(range(2 * MIN_AT_ONCE + 1))

    play(story, 2 * MIN_AT_ONCE + 2)


def test_nodes_that_do_not_even_read_beats_give_on_turns_that_come_meanwhile() -> None:
    async def story(crowd: Crowd) -> None:
        deaf = range(int(BEAT_SECONDS / TURN_SECONDS + 1) * MIN_AT_ONCE, len(crowd.streams) - 1)
        for place in deaf:
            crowd.streams[place].is_deaf = True
        await asyncio.sleep(BEAT_SECONDS + 3 * TURN_SECONDS)
        assert [place for place in deaf if place in crowd.made] == []
        assert crowd.made[-1] == len(crowd.streams) - 1

    play(story, int(BEAT_SECONDS / TURN_SECONDS + 2) * MIN_AT_ONCE + 1)


@pytest.mark.parametrize(("size", "slowest"), [(10, 600.0), (16 * 1024 * 1024, 1024.0)])
def test_who_takes_a_message_far_too_slowly_is_found_out(size: int, slowest: float) -> None:
    async def story() -> None:
        stream = Stream()
        (session,) = sessions_on([stream], Sends(size), Reads(size, 1))
        serving = asyncio.ensure_future(session.run(lambda *_: ""))
        session.send(lambda: pb.ToNode(task=pb.Task(task=size * "x")).SerializeToString())
        await asyncio.sleep(slowest)
        assert not session.is_stuck
        await asyncio.sleep(1.0)
        assert session.is_stuck
        stream.reads.set()
        await asyncio.sleep(MOMENT)
        assert not session.is_stuck, "it has been read, after all"
        session.end("over")
        await serving

    in_virtual_time(story())


def test_a_link_that_ends_gives_its_turn_on_and_one_that_waited_takes_none() -> None:
    async def story(crowd: Crowd) -> None:
        waiting, last = MIN_AT_ONCE, MIN_AT_ONCE + 1
        crowd.sessions[waiting].end("it left")
        await asyncio.sleep(MOMENT)
        crowd.sessions[0].end("it left")
        await asyncio.sleep(MOMENT)
        assert crowd.made == [*range(MIN_AT_ONCE), last]

    play(story, MIN_AT_ONCE + 2)


def test_small_messages_need_no_turn() -> None:
    async def story(crowd: Crowd) -> None:
        crowd.streams[0].reads.set()
        await asyncio.sleep(MOMENT)  # its turn has gone to another, who keeps it
        crowd.sessions[0].send(pb.ToNode(cancel=pb.Cancel(task="run/1/n")))
        await asyncio.sleep(MOMENT)
        assert crowd.streams[0].heard == ["task", "cancel"]
        assert len(crowd.made) == MIN_AT_ONCE + 1

    play(story, 2 * MIN_AT_ONCE)


def test_the_smaller_a_message_the_more_of_them_go_at_once() -> None:
    async def story() -> None:
        crowd = Crowd(MIN_AT_ONCE * 3, message_bytes=LARGE // 2)
        await asyncio.sleep(MOMENT)
        assert len(crowd.made) == MIN_AT_ONCE * 2
        await crowd.leave()

    in_virtual_time(story())
