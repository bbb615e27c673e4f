"""Light nodes: many of the client's own nodes in one process, each on its own link, that do everything but train.

Each reads its task, loads the weights into a network, takes them out again, and packs, sends and is told its verdict as
a client does. Prints `joined` once all are in.

    python -m benchmarks.light_nodes --first 0 --count 25 --port 8080
"""

import argparse
import os
import signal
import threading
from contextlib import suppress

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.discovery import Place
from client.entrance import Entrance
from client.hello import make_hello
from client.identity import Identity
from client.link import Link
from client.node import Node, Stopped
from common import fleet_pb2 as pb
from common import models
from common.layers import load
from common.models import load_state, weights_of
from common.records import Update, read_task, update_record

HOST = "127.0.0.1"
AT_ONCE = 8  # nodes that join: all of them together would miss their handshakes' deadlines, again and again
LISTEN_SECONDS = 2.0  # a thousand nodes that look as often as one may would keep a core busy


def light_app(shard: int) -> ClientApp:
    """What a light node answers with: the weights that came, one of them moved so that no two updates are the same."""
    app, model = ClientApp(), models.build("lenet5")

    @app.train()
    def train(message: Message, context: Context) -> Message:
        del context
        task = read_task(message.content)
        load_state(model, task.state)
        state = weights_of(model)
        state["fc3.bias"][0] += 1e-3 * (shard + 1 + task.round_number % 7)
        return Message(update_record(Update(state, 1, 2.3, shard, 0.0, 1)), reply_to=message)

    return app


class LightNode(Node):
    """A node that waits for its turn to work: threads that compute at once in one interpreter only stop each other."""

    turn = threading.Lock()

    def _work(self, task: pb.Task, link: Link) -> None:
        with self.turn:
            super()._work(task, link)


class Crowd:
    """The light nodes of this process."""

    def __init__(self, first: int, count: int, port: int) -> None:
        self._place = Place(HOST, port, "the benchmark names it", "flag")
        self._settings = load()
        self._stopping = threading.Event()
        self._joined, self._count = 0, count
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(first, first + count)]

    def live(self) -> None:
        """Until a signal, or until all have left."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stopping.set())
        with self._news:
            for num_started, thread in enumerate(self._threads, 1):
                thread.start()
                while self._joined + AT_ONCE <= num_started and not self._stopping.is_set():
                    self._news.wait(LISTEN_SECONDS)
        for thread in self._threads:
            thread.join()

    def _live(self, number: int) -> None:
        name = f"light-{number:04}"
        node = LightNode(
            hello=make_hello(Identity(name, ""), number, None, self._settings, 1),
            own_data=None,
            find=lambda: self._place,
            once=True,
            should_stop=lambda seconds: self._stopping.wait(seconds) if seconds else self._stopping.is_set(),
            tell=self._hear,
            show_progress=lambda _: None,
            entrance=Entrance(name, None, 0, lambda _: None),
            app=light_app(number),
            listen_seconds=LISTEN_SECONDS,
        )
        with suppress(Stopped):
            node.live()

    def _hear(self, line: str) -> None:
        if line.startswith("joined"):
            with self._news:
                self._joined += 1
                self._news.notify()
                if self._joined == self._count:
                    print("joined", flush=True)


def main() -> None:
    """Be so many nodes, from so many shards on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--first", "--count", "--port"):
        parser.add_argument(flag, type=int, required=True)
    asked = parser.parse_args()
    Crowd(asked.first, asked.count, asked.port).live()


if __name__ == "__main__":
    main()
