"""Light nodes: the client's own node on its own link, with a fit that is known beforehand and takes as long as told."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.app import watching
from client.discovery import Place
from client.entrance import Entrance
from client.link import Link
from client.node import Node, Stopped
from client.spool import Spool
from common import fleet_pb2 as pb
from common.arrays import to_state
from common.models import State
from common.records import Update, update_record
from common.streams import stream
from tests.link_twins import hello

STEP_SECONDS = 0.02  # how often a lingering fit looks whether it is still wanted
NUM_EXAMPLES = 100  # of shard 0; each shard has seven more than the one before


def light_state() -> State:
    """A model of 80,040 bytes: large enough to be cut in the middle."""
    return {"weight": torch.zeros(100, 200), "bias": torch.zeros(10)}


def light_fit(state: State, round_number: int, shard: int) -> Update:
    """What a node with that shard makes of a model: the same bits wherever it is computed."""
    chance = stream(0, round_number, shard)
    moved = {name: value + 0.1 * torch.randn(value.shape, generator=chance) for name, value in state.items()}
    return Update(moved, NUM_EXAMPLES + 7 * shard, train_loss=0.5, shard=shard, fit_seconds=0.01, threads=1)


def fit_of(message: Message, shard: int) -> Update:
    """``light_fit`` of the task in a message."""
    number = message.content.config_records["config"]["server-round"]
    assert isinstance(number, int)
    return light_fit(to_state(message.content.array_records["arrays"]), number, shard)


class LightNode:
    """A node with the shard of its number, on a thread of its own, until ``stop``.

    Attributes:
        linger_seconds: how long a fit takes.
        says_twice: whether every update is sent twice.
        thawed: cleared, nothing leaves the node any more, as if its process were stopped.
        fitted: (round, shard) of the fits that were begun.
        is_fitting: set while one is under way.
        told: all lines for a person.
    """

    def __init__(self, name: str, shard: int, port: int, state: Path, enrol_port: int = 0) -> None:
        """``state`` is the folder of its last update; with an ``enrol_port`` it has a certificate, and TLS."""
        self.name, self.shard = name, shard
        self._state, self._enrol_port = state, enrol_port
        self.linger_seconds, self.says_twice = 0.0, False
        self.thawed = threading.Event()
        self.thawed.set()
        self.fitted: list[tuple[int, int]] = []
        self.is_fitting = threading.Event()
        self.told: list[str] = []
        self._place = Place("127.0.0.1", port, "the test names it", "flag")
        self.start()

    def start(self) -> None:
        """Begin a life: of a former one, nothing is remembered but what is on the disk."""
        self._stopping = threading.Event()
        entrance = Entrance(self.name, None, self._enrol_port, self.told.append) if self._enrol_port else None
        node = Node(
            hello=hello(self.name, shard=self.shard),
            own_data=None,
            find=lambda: self._place,
            once=False,
            should_stop=self._stopping.wait,
            tell=self.told.append,
            show_progress=lambda _: None,
            entrance=entrance,
            spool=Spool(self._state, self.name, self.told.append),
            app=self._app(),
            opened=self._link(),
        )
        self._thread = threading.Thread(target=self._live, args=(node,), name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End this life, and its thread with it."""
        self._stopping.set()
        self.thawed.set()
        self._thread.join()

    @staticmethod
    def _live(node: Node) -> None:
        with suppress(Stopped):
            node.live()

    def _app(self) -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            del context
            fitted = fit_of(message, self.shard)
            number = message.content.config_records["config"]["server-round"]
            assert isinstance(number, int)
            self.fitted.append((number, self.shard))
            self.is_fitting.set()
            try:
                _linger(self.linger_seconds, watching.get())
            finally:
                self.is_fitting.clear()
            return Message(update_record(fitted), reply_to=message)

        return app

    def _link(self) -> type[Link]:
        node = self

        class OddLink(Link):
            """A link that stutters or freezes with its node."""

            def send(self, message: pb.FromNode) -> None:
                node.thawed.wait()
                super().send(message)
                if node.says_twice and message.WhichOneof("kind") == "update":
                    super().send(message)

        return OddLink


def _linger(seconds: float, watch: Callable[[float], None]) -> None:
    pause = threading.Event()
    for step in range(int(seconds / STEP_SECONDS)):
        watch(step * STEP_SECONDS / seconds)
        pause.wait(STEP_SECONDS)
