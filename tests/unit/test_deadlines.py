"""Rule: a round is over at its deadline, whatever its nodes do, and each of its tasks has the verdict that it earned.

The server's own streams and tasks, in virtual time: nothing waits, nothing is due to chance.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import grpc
from flwr.app import Message

from common import fleet_pb2 as pb
from common.wire import to_update
from server.grids import Reserve, Tasks
from server.link.assignment import Assignment
from server.link.relay import Listener
from server.link.roster import Roster, node_id
from server.link.streams import Streams
from tests.faults.tape import Silent
from tests.link_twins import MODEL_BYTES, PATIENCE_SECONDS, hello, link_settings
from tests.scripted_grid import task_message, toy_state, update_of
from tests.virtual_time import in_virtual_time

NUM_ROUNDS, NUM_NODES = 1000, 5
DEADLINE, BEAT, SILENCE, REJOIN = 20.0, 4.0, 5.0, 8.0
BEHAVIOURS = 5 * ["delivers"] + ["vanishes", "straggles", "straggles", "falls silent", "comes back"]
UPDATE = to_update(Message(update_of(toy_state(1.0), 0), reply_to=task_message()), "")


class Stream:
    """A gRPC stream in memory, as the server sees it."""

    def __init__(self, hear: Callable[[pb.ToNode], None]) -> None:
        self._said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._hear, self.is_unread = hear, False
        self._told: list[Callable[[object], None]] = []

    def say(self, message: pb.FromNode) -> None:
        self._said.put_nowait(message.SerializeToString())

    def close(self) -> None:
        self._said.put_nowait(None)

    async def read(self) -> bytes | None:
        return await self._said.get()

    async def write(self, raw: bytes) -> None:
        self._hear(pb.ToNode.FromString(raw))
        if self.is_unread:
            await asyncio.Event().wait()

    def add_done_callback(self, told: Callable[[object], None]) -> None:
        self._told.append(told)

    def end(self, _: object) -> None:
        """The server is done with it, and nothing is left to be read."""
        for told in self._told:
            told(self)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


@dataclass
class VirtualNode:
    """A node that does in each round what it is told; it shows that it lives unless it is silent."""

    streams: Streams
    shard: int
    behaviour: str = "delivers"
    seconds: float = 1.0  # until it delivers, or until something happens to it
    is_silent: bool = False
    verdicts: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # the tasks that it had

    def join(self) -> None:
        self.stream, self.is_silent = Stream(self.hear), False
        self.stream.say(pb.FromNode(hello=hello(f"n{self.shard}", shard=self.shard)))
        context = cast("grpc.aio.ServicerContext[bytes, bytes]", self.stream)
        self.serving = asyncio.ensure_future(self.streams.join(None, context))
        self.serving.add_done_callback(self.stream.end)

    def hear(self, message: pb.ToNode) -> None:
        kind, later = message.WhichOneof("kind"), asyncio.get_running_loop().call_later
        if kind == "task":
            task = message.task.task
            self.asked.append(task)
            self.stream.say(pb.FromNode(progress=pb.Progress(task=task)))
            match self.behaviour:
                case "vanishes" | "comes back":
                    later(self.seconds, self.stream.close)
                    if self.behaviour == "comes back":  # in time, begins anew, and takes longer than it was waited for
                        later(self.seconds + REJOIN / 2, self.join)
                        self.behaviour, self.seconds = "delivers", REJOIN
                case "falls silent":
                    self.is_silent = True
                case _:
                    later(self.seconds, self.deliver, self.stream, task)
        elif kind == "verdict":
            self.verdicts.append(message.verdict.verdict)
        elif kind == "beat" and not self.is_silent:
            self.stream.say(pb.FromNode(progress=pb.Progress(task="")))

    def deliver(self, stream: Stream, task: str) -> None:
        UPDATE.task = task
        stream.say(pb.FromNode(update=UPDATE))


def plan_for(node: VirtualNode, chance: random.Random) -> str:
    """Decide what the node does in the next round; returns how its task must end, as its answer says it."""
    node.behaviour = chance.choice(BEHAVIOURS)
    bounds = {"delivers": (0.0, DEADLINE), "straggles": (DEADLINE, 2 * DEADLINE), "comes back": (0.0, DEADLINE / 3)}
    node.seconds = chance.uniform(*bounds.get(node.behaviour, (0.0, DEADLINE - REJOIN)))
    late = f"no update within {DEADLINE:g} s"
    gone = f"it closed its link, and it was not back within {REJOIN:g} s"
    silent = f"silent for {SILENCE:g} s, and it was not back within {REJOIN:g} s"
    return {"straggles": late, "vanishes": gone, "falls silent": silent}.get(node.behaviour, "")


async def a_thousand_rounds() -> tuple[Counter[str], float]:
    """Returns the answers by reason, and the longest round in seconds."""
    settings = link_settings(
        link_beat_seconds=BEAT,
        link_silence_seconds=SILENCE,
        federation_rejoin_seconds=REJOIN,
        data_num_shards=NUM_NODES,
    )
    listener: Listener = Silent()
    streams = Streams(settings, Roster(NUM_NODES, 1), MODEL_BYTES, listener, None, lambda: None)
    pulse = asyncio.ensure_future(streams.pulse())
    nodes = [VirtualNode(streams, shard) for shard in range(NUM_NODES)]
    chance, loop = random.Random(6), asyncio.get_running_loop()
    reasons: Counter[str] = Counter()
    content, longest = task_message(state=toy_state(1.0)).content, 0.0
    for number in range(1, NUM_ROUNDS + 1):
        expected = {node_id(f"n{node.shard}"): plan_for(node, chance) for node in nodes}
        for node in nodes:
            if node_id(f"n{node.shard}") not in streams.sessions:
                node.join()
        await asyncio.sleep(BEAT)  # all are joined
        messages = [Message(content, each, "train") for each in expected]
        names = {each: f"run/{number}/{each}" for each in expected}
        begin = loop.time()
        ended = await streams.tasks.exchange(names, Tasks(f"run/{number}", messages, DEADLINE))
        longest = max(longest, loop.time() - begin)
        answers = {each.node_id: _reason(each) for each in ended}
        assert answers == expected
        assert len(ended) == NUM_NODES
        reasons.update(answers.values())
        await asyncio.sleep(DEADLINE)  # what stragglers bring later belongs to no other round
    told = [verdict for node in nodes for verdict in node.verdicts]
    assert set(told) == {"expired"}
    for task in (pulse, *(node.serving for node in nodes)):
        task.cancel()
    await asyncio.gather(pulse, *(node.serving for node in nodes), return_exceptions=True)
    return reasons, longest


def _reason(assignment: Assignment) -> str:
    """Why there is no update, '' if there is one."""
    outcome = assignment.outcome.result()
    return outcome if isinstance(outcome, str) else ""


def test_no_round_of_a_thousand_outlasts_its_deadline() -> None:
    """Half of the nodes deliver; a tenth vanishes, a fifth straggles, a tenth falls silent, a tenth comes back."""
    reasons, longest = in_virtual_time(a_thousand_rounds())
    assert longest <= DEADLINE + 1e-6
    assert reasons.total() == NUM_ROUNDS * NUM_NODES
    assert min(reasons.values()) > 400
    assert reasons[""] > 2900


async def a_round_beside_a_hanging_disk(disk: threading.Event) -> tuple[list[str], float, list[str], list[int]]:
    """A node vanishes, and what must be written before another of two is asked waits for ``disk``.

    Returns the answers, when they were in, the tasks that nodes had, and whom it was to be written of.
    """
    settings = link_settings(link_beat_seconds=BEAT, link_silence_seconds=SILENCE, federation_rejoin_seconds=REJOIN)
    streams = Streams(settings, Roster(NUM_NODES, 1), MODEL_BYTES, Silent(), None, lambda: None)
    nodes = [VirtualNode(streams, 0, "vanishes"), VirtualNode(streams, 1), VirtualNode(streams, 2)]
    for node in nodes:
        node.join()
    await asyncio.sleep(0)
    names = {node_id(f"n{shard}"): f"run/1/n{shard}" for shard in range(3)}
    content = task_message(state=toy_state(1.0)).content
    first, *others = (Message(content, each, "train") for each in names)
    written: list[int] = []

    def write(node: int) -> None:
        written.append(list(names).index(node))
        disk.wait(PATIENCE_SECONDS)

    begin = asyncio.get_running_loop().time()
    ended = await streams.tasks.exchange(names, Tasks("run/1", [first], DEADLINE, reserve=Reserve(others, write)))
    seconds = asyncio.get_running_loop().time() - begin
    disk.set()
    await asyncio.sleep(BEAT)
    return [_reason(each) for each in ended], seconds, [task for node in nodes for task in node.asked], written


def test_a_disk_that_hangs_holds_up_neither_the_end_of_a_round_nor_lets_it_ask_unwritten() -> None:
    reasons, seconds, asked, written = in_virtual_time(a_round_beside_a_hanging_disk(threading.Event()))
    assert reasons == [f"it closed its link, and it was not back within {REJOIN:g} s"]
    assert seconds == DEADLINE
    assert asked == ["run/1/n0"]
    assert written == [1]


class Leaving(Silent):
    """A listener that keeps who left why."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def left(self, node: str, reason: str) -> None:
        self.reasons.append(f"{node}: {reason}")


async def a_node_that_shows_life_and_reads_nothing() -> list[str]:
    """Why it left, after ten minutes and a beat."""
    listener = Leaving()
    settings = link_settings(link_beat_seconds=BEAT, link_silence_seconds=SILENCE)
    streams = Streams(settings, Roster(NUM_NODES, 1), MODEL_BYTES, listener, None, lambda: None)
    pulse, node = asyncio.ensure_future(streams.pulse()), VirtualNode(streams, 0)
    node.join()
    node.stream.is_unread = True
    for _ in range(int(600 / BEAT) + 2):
        await asyncio.sleep(BEAT)
        node.stream.say(pb.FromNode(progress=pb.Progress()))
    pulse.cancel()
    return listener.reasons


def test_a_node_that_reads_nothing_is_gone_though_it_shows_that_it_lives() -> None:
    assert in_virtual_time(a_node_that_shows_life_and_reads_nothing()) == ["n0: it does not read what it is sent"]
