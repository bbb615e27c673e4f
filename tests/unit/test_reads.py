"""Rule: of a large federation's updates so many are read at once and no more, and nobody waits long for a slow node."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from common import fleet_pb2 as pb
from server.link.reads import MAX_BYTES, MAX_UNREAD_BYTES, MIN_AT_ONCE, OPTIONS, TURN_SECONDS, Reads
from server.link.sends import Sends
from server.link.session import Session
from tests.sessions import sessions_on
from tests.virtual_time import in_virtual_time

LARGE = MAX_BYTES // MIN_AT_ONCE  # so that just MIN_AT_ONCE of them may be read at once
MANY = MAX_UNREAD_BYTES // LARGE + 1  # nodes whose updates may not all come unasked
TASK = "run/1/n"


class Stream:
    """A stream from a node; ``is_read`` says whether the server asks for its next message."""

    def __init__(self) -> None:
        self.is_read = False
        self._messages: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        self.is_read = True
        message = await self._messages.get()
        self.is_read = False
        return message

    def say(self, message: pb.FromNode) -> None:
        self._messages.put_nowait(message.SerializeToString())


class Crowd:
    """Nodes that have all said that they are done with their task, and send no update yet."""

    def __init__(self, number: int, num_nodes: int) -> None:
        self.streams = [Stream() for _ in range(number)]
        self.sessions = sessions_on(self.streams, Sends(LARGE), Reads(LARGE, num_nodes))
        self.updates = list[str]()
        self.serving = [asyncio.ensure_future(session.run(self._hear)) for session in self.sessions]
        for stream in self.streams:
            stream.say(pb.FromNode(progress=pb.Progress(task=TASK)))
            stream.say(pb.FromNode(progress=pb.Progress()))

    @property
    def read(self) -> list[int]:
        """Which nodes the server reads from."""
        return [place for place, stream in enumerate(self.streams) if stream.is_read]

    async def send_update(self, place: int) -> None:
        self.streams[place].say(pb.FromNode(update=pb.Update(task=TASK)))
        await asyncio.sleep(TURN_SECONDS / 10)

    async def leave(self) -> None:
        for session in self.sessions:
            session.end("over")
        await asyncio.gather(*self.serving)

    def _hear(self, session: Session, message: pb.FromNode, size: int) -> str:
        del size
        if message.WhichOneof("kind") == "update":
            session.work.answers(message.update.task)
            self.updates.append(session.node.name)
        else:
            session.work.says(message.progress.task)
        return ""


def play(story: Callable[[Crowd], Coroutine[Any, Any, None]], number: int, num_nodes: int = MANY) -> None:
    async def told() -> None:
        crowd = Crowd(number, num_nodes)
        await asyncio.sleep(TURN_SECONDS / 10)
        await story(crowd)
        await crowd.leave()

    in_virtual_time(told())


def test_an_update_is_read_when_one_before_it_is_in() -> None:
    async def story(crowd: Crowd) -> None:
        assert crowd.read == list(range(MIN_AT_ONCE))
        await crowd.send_update(3)
        assert crowd.updates == ["n3"]
        assert crowd.read == list(range(MIN_AT_ONCE + 1)), "n3 is idle, the next one has its turn"
        await crowd.send_update(5)
        assert crowd.read == list(range(MIN_AT_ONCE + 2)), "an idle node takes no turn"

    play(story, MIN_AT_ONCE + 3)


def test_a_turn_passes_on_when_nothing_comes_and_comes_back_once() -> None:
    async def story(crowd: Crowd) -> None:
        await asyncio.sleep(TURN_SECONDS)
        assert crowd.read == list(range(2 * MIN_AT_ONCE))
        await crowd.send_update(0)  # its turn is over: it gives none on
        assert crowd.updates == ["n0"]
        assert crowd.read == list(range(2 * MIN_AT_ONCE))
        await crowd.send_update(MIN_AT_ONCE)
        assert crowd.read == list(range(2 * MIN_AT_ONCE + 1))

    play(story, 2 * MIN_AT_ONCE + 2)


def test_who_waits_for_a_turn_is_not_silent() -> None:
    async def story(crowd: Crowd) -> None:
        assert not crowd.streams[-1].is_read
        assert crowd.sessions[-1].silent_seconds <= 0
        await asyncio.sleep(2 * TURN_SECONDS)
        assert crowd.streams[-1].is_read
        assert 0 < crowd.sessions[-1].silent_seconds <= 2 * TURN_SECONDS

    play(story, 2 * MIN_AT_ONCE)


def test_a_link_that_ends_gives_its_turn_on_and_one_that_waited_takes_none() -> None:
    async def story(crowd: Crowd) -> None:
        waiting, last = MIN_AT_ONCE, MIN_AT_ONCE + 1
        crowd.sessions[waiting].end("it left")
        await asyncio.sleep(TURN_SECONDS / 10)
        crowd.sessions[0].end("it left")
        await asyncio.sleep(TURN_SECONDS / 10)
        assert crowd.streams[last].is_read
        assert not crowd.streams[waiting].is_read

    play(story, MIN_AT_ONCE + 2)


def test_the_updates_of_few_nodes_need_no_turn() -> None:
    async def story(crowd: Crowd) -> None:
        assert crowd.read == list(range(2 * MIN_AT_ONCE))

    play(story, 2 * MIN_AT_ONCE, num_nodes=MANY - 1)


def test_only_the_connections_of_many_nodes_are_held_back() -> None:
    assert Reads(LARGE, MANY).options == OPTIONS
    assert Reads(LARGE, MANY - 1).options == ()
