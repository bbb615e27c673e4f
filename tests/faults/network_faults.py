"""Seeded schedules of network faults: one fault for a node in a round, drawn from a seed, and how it is done."""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from unittest import mock

from tests.faults.chaos_proxy import CLEAR, ChaosProxy, Weather
from tests.faults.light_nodes import LightNode

PARCEL_BYTES = 81_000  # a task or an update of a light node, about
DAY_SECONDS = 86_400.0
KINDS = (
    "delay", "throttle", "task cut", "update cut", "half-open", "sent twice", "restart", "freeze", "straggle",
    "clock jump",
)  # fmt: skip
LATE_KINDS = ("vanish",) + 2 * ("straggle",) + ("update cut", "half-open")  # of those a deadline is for


@dataclass(frozen=True)
class Fault:
    """What befalls one node in one round."""

    kind: str
    size: float  # 0..1: when, how long or how much


@dataclass(frozen=True)
class Schedule:
    """All that is drawn from a seed."""

    seed: int
    num_rounds: int
    num_nodes: int
    fraction: float
    over_selection: float
    deadline_seconds: float
    return_seconds: float  # that nodes which a fault has thrown out get to come back before the next round
    is_tls: bool  # mutual, as servers do it unless told otherwise
    faults: Mapping[tuple[int, int], Fault]  # by (round, shard)


def draw(seed: int, num_rounds: int = 3, num_nodes: int = 4) -> Schedule:
    """A schedule in which every second node, about, has a fault in a round; every other one is over TLS."""
    chance = random.Random(seed)
    places = [(number, shard) for number in range(1, num_rounds + 1) for shard in range(num_nodes)]
    faults = {place: Fault(chance.choice(KINDS), chance.random()) for place in places if chance.random() < 0.5}
    fraction, over_selection = chance.choice([(1.0, 0.0), (1.0, 0.0), (0.75, 0.0), (0.5, 0.5)])
    return Schedule(seed, num_rounds, num_nodes, fraction, over_selection, 1.0, 0.5, seed % 2 == 1, faults)


def draw_late(seed: int, num_rounds: int, num_nodes: int, deadline_seconds: float) -> Schedule:
    """A schedule against the deadline: a tenth of nodes vanishes, a fifth straggles, a fifth sends half an update."""
    chance = random.Random(seed)
    faults = {
        (number, shard): Fault(kind, chance.random())
        for number in range(1, num_rounds + 1)
        for shard in range(num_nodes)
        if (kind := chance.choice(LATE_KINDS)) and chance.random() < 0.1 * len(LATE_KINDS)
    }
    return Schedule(seed, num_rounds, num_nodes, 1.0, 0.0, deadline_seconds, 0.02, False, faults)


class JumpingClock:
    """The wall clock of this process, which may be set: a context manager for as long as it matters."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._patched = ExitStack()

    def __enter__(self) -> "JumpingClock":
        real_ns = time.time_ns

        def now_ns() -> int:
            return real_ns() + int(self._offset * 1e9)

        def now() -> float:
            return now_ns() / 1e9

        self._patched.enter_context(mock.patch.object(time, "time", now))
        self._patched.enter_context(mock.patch.object(time, "time_ns", now_ns))
        return self

    def __exit__(self, *_: object) -> None:
        self._patched.close()

    def jump(self, seconds: float) -> None:
        """Set the clock forward, or back."""
        self._offset += seconds


class Weathermaker:
    """Does to light nodes and their lines what a schedule says."""

    def __init__(self, schedule: Schedule, proxy: ChaosProxy, nodes: Sequence[LightNode]) -> None:
        self._faults = schedule.faults
        self._proxy, self._nodes = proxy, nodes
        self._deadline_seconds = schedule.deadline_seconds
        self._restarts: list[threading.Thread] = []

    def strike(self, round_number: int, clock: JumpingClock) -> None:
        """Begin the faults of a round."""
        for node in self._nodes:
            if fault := self._faults.get((round_number, node.shard)):
                self._begin(node, fault, clock)

    def clear(self) -> None:
        """Let the lines carry, and the nodes work, as they should."""
        for restart in self._restarts:
            restart.join()
        self._restarts.clear()
        for node in self._nodes:
            self._proxy.set(node.name)
            node.says_twice, node.linger_seconds = False, 0.0
            node.thawed.set()

    def _begin(self, node: LightNode, fault: Fault, clock: JumpingClock) -> None:
        size = fault.size
        slow = PARCEL_BYTES / (self._deadline_seconds * (0.1 + 2 * size))
        match fault.kind:
            case "delay":
                self._proxy.set(node.name, Weather(delay_seconds=0.02 * size), Weather(delay_seconds=0.02 * size))
            case "throttle":
                self._proxy.set(node.name, Weather(bytes_per_second=slow), Weather(bytes_per_second=10 * slow))
            case "task cut":
                self._proxy.set(node.name, CLEAR, Weather(num_bytes=int(PARCEL_BYTES * size)))
            case "update cut":
                self._proxy.set(node.name, Weather(num_bytes=int(PARCEL_BYTES * size)))
            case "half-open":
                self._proxy.set(node.name, Weather(num_bytes=int(PARCEL_BYTES * size), then="swallow"))
            case "vanish":  # while the task comes in, or in the middle of the fit; it is not back in this round
                self._proxy.set(node.name, CLEAR, Weather(num_bytes=int(PARCEL_BYTES * 2 * size)), is_shut=True)
                node.linger_seconds = self._deadline_seconds
            case "sent twice":
                node.says_twice = True
            case "restart":
                node.linger_seconds = self._deadline_seconds * size
                self._restarts.append(threading.Thread(target=self._restart, args=(node,)))
                self._restarts[-1].start()
            case "freeze":
                node.thawed.clear()
            case "straggle":
                node.linger_seconds = self._deadline_seconds * (0.5 + 2 * size)
            case "clock jump":
                clock.jump(DAY_SECONDS * (1 if size < 0.5 else -1))

    def _restart(self, node: LightNode) -> None:
        """As when its machine loses power in the middle of a fit: nothing more is heard, and a new life begins."""
        node.is_fitting.wait(self._deadline_seconds)
        self._proxy.set(node.name, is_shut=True)
        self._proxy.cut(node.name)
        node.stop()
        self._proxy.set(node.name)
        node.start()
