"""A node from its command line to its exit code: name, threads, data and the way in are put together here."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from client import device
from client.discovery import Place, find_server
from client.display import Display
from client.entrance import Entrance, given_token
from client.hello import make_hello
from client.identity import Identity, claim
from client.node import Node, Stopped
from client.spool import Spool
from client.threads import Threads
from common import mnist
from common.quota import usable_cores
from common.settings import Settings
from common.state import state_dir
from common.token import Token

INSECURE = "the link is plaintext (link.insecure): whoever is on the network can listen and change it"


def live(arguments: argparse.Namespace, settings: Settings) -> int:
    """Be the node that the command line asks for; returns the exit code.

    Raises:
        FedgeError: it cannot be that node, or with ``--once`` its run failed.
    """
    display = Display()
    token = given_token(arguments.token, arguments.token_file, os.environ.get("FEDGE_TOKEN"))
    shard = "auto" if arguments.shard is None else arguments.shard
    with claim(arguments.name, shard if arguments.data is None else None) as identity:
        if identity.note:
            display.tell(identity.note)
        node = _node(arguments, settings, identity, token, display)
        try:
            node.live()
        except Stopped:
            display.tell("stopped")
            return 130
        return 0


def _node(
    arguments: argparse.Namespace, settings: Settings, identity: Identity, token: Token | None, display: Display
) -> Node:
    device.check_cpu()
    threads = _probe(settings, display)
    num_threads = threads.count if threads else settings.client.threads
    if warning := device.set_threads(num_threads):
        display.tell(warning)
    own_data = None if arguments.data is None else str(Path(arguments.data).expanduser().resolve())
    if own_data is None:
        mnist.load_labels("train")  # data that cannot be used ends this node here, not every round it is in
    hello = make_hello(identity, arguments.shard, own_data, settings, num_threads)
    entrance = None
    if settings.link.insecure:
        display.tell(INSECURE)
    else:
        entrance = Entrance(identity.name, token, settings.link.enrol_port, display.tell, hello.own_examples)
    return Node(
        hello=hello,
        own_data=own_data,
        find=_finder(arguments, settings, entrance),
        once=arguments.once,
        should_stop=_on_signals(),
        tell=display.tell,
        show_progress=display.show,
        spool=Spool(state_dir(), identity.name, display.tell),
        threads=threads,
        entrance=entrance,
    )


def _probe(settings: Settings, display: Display) -> Threads | None:
    """What finds out how many threads to train with, unless that is set."""
    if settings.client.threads:
        return None
    threads = Threads(usable_cores())
    display.tell(threads.told())
    return threads


def _finder(arguments: argparse.Namespace, settings: Settings, entrance: Entrance | None) -> Callable[[], Place]:
    def find() -> Place:
        named = (arguments.server, os.environ.get("FEDGE_SERVER"), settings.client.server)
        return find_server(*named, prefer=entrance.is_known if entrance else lambda _: False)

    return find


def _on_signals() -> Callable[[float], bool]:
    """Listen to SIGINT and SIGTERM; the answer sleeps and says whether to stop. A second signal ends at once."""
    stopping = threading.Event()

    def receive(number: int, _: object) -> None:
        if stopping.is_set():
            os._exit(130)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, receive)
    return lambda seconds: stopping.wait(seconds) if seconds else stopping.is_set()
