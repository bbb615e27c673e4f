"""A node's life: join, train when asked, join again whenever the link is lost, for days."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from client.app import app, watching
from client.discovery import Place
from client.entrance import Entrance, check_plaintext
from client.knocking import Closed
from client.link import TURNED_DOWN, Ended, Link, messages
from client.membership import Membership
from client.spool import Spool
from client.threads import Threads
from common import fleet_pb2 as pb
from common.errors import FedgeError, RunFailed, UsageError, WireError
from common.records import EVALUATE, answer, identify
from common.texts import one_line
from common.wire import from_task, model_of, to_update

LISTEN_SECONDS = 0.2  # how often an idle node looks whether it should stop
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0


class Stopped(FedgeError):
    """The node was asked to stop."""


class _Dropped(Exception):
    """The task in hand is no longer wanted."""


@dataclass
class Node:
    """What a node is for as long as its process lives."""

    hello: pb.Hello
    own_data: str | None  # the folder or file of --data
    find: Callable[[], Place]
    once: bool
    should_stop: Callable[[float], bool]  # sleeps this many seconds at most; True: leave now
    tell: Callable[[str], None]  # a line for a person
    show_progress: Callable[[str], None]  # a passing line; '' clears it
    threads: Threads | None = None  # where a probe finds how many; None = those of the hello, always
    entrance: Entrance | None = None  # the way in with TLS; None = plaintext
    app: ClientApp = app  # what answers tasks
    opened: type[Link] = Link  # what carries them
    spool: Spool = field(default_factory=Spool)  # the last finished update
    listen_seconds: float = LISTEN_SECONDS  # how often it looks, when idle, whether it should stop
    _unanswered: str = ""  # the task whose update went out on this link and has had no verdict yet
    _remembered: RecordDict = field(default_factory=RecordDict)  # what the ClientApp keeps from task to task
    _pause: float = FIRST_PAUSE_SECONDS
    _told: set[str] = field(default_factory=set)
    _shard: int = 0
    _was_welcome: bool = False
    _takes_any_shard: bool = False

    def live(self) -> None:
        """Serve run after run; returns after one that finished if ``once``.

        Raises:
            Stopped: on a signal.
            UsageError: the server refuses this node for good.
            RunFailed: with ``once``, the run ended before it was done.
        """
        identify(run_id=1, node_id=1)
        while True:
            place = self.find()
            self._tell_once(place.how)
            try:
                ended = self._join(place)
            except Closed as error:
                ended = str(error)
            if ended is None:
                return
            self._tell_once(f"{place.address}: {ended}; trying again")
            if self.should_stop(self._pause * random.uniform(0.5, 1.0)):  # noqa: S311 — spreads nodes out in time
                raise Stopped("stopped")
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _join(self, place: Place) -> str | None:
        """Get in, serve; returns why the link ended, None if all is done."""
        membership = self._get_in(place)
        with self.opened(place.host, place.port, self.hello, membership) as link:
            try:
                ended = self._serve(link)
            except Stopped:
                link.leave("it was stopped")
                raise
        if self.entrance and ended == TURNED_DOWN:
            self.entrance.turned_down()
        return ended

    def _get_in(self, place: Place) -> Membership | None:
        """Beside the main thread, so that neither a slow name server nor a silent one holds up a signal."""
        outcome: Future[Membership | None] = Future()

        def enter() -> None:
            try:
                outcome.set_result(self.entrance.enter(place) if self.entrance else check_plaintext(place))
            except Exception as error:
                outcome.set_exception(error)

        threading.Thread(target=enter, name="entrance", daemon=True).start()
        while not wait([outcome], LISTEN_SECONDS).done:
            if self.should_stop(0.0):
                raise Stopped("stopped")
        return outcome.result()

    def _serve(self, link: Link) -> str | None:
        """One link, from hello to its end; returns why it ended, None if all is done."""
        farewell: pb.Farewell | None = None
        for received in messages(link, self.listen_seconds):
            if self.should_stop(0.0):
                raise Stopped("stopped")
            match received:
                case pb.Welcome():
                    self._welcomed(received, link)
                case pb.Refusal():
                    self._refused(received)
                    return f"the server refuses this node: {received.reason[:300]}"
                case pb.Task():
                    self._work(received, link)
                case pb.Certificate() if self.entrance:
                    self.entrance.renewed(received.certificate)
                case pb.Owed():
                    self._owed(received, link)
                case pb.Verdict():
                    self._judged(received)
                case pb.Farewell():
                    farewell = received
                    self.tell(f"the server says: {received.reason[:200]}")
                case Ended():
                    return self._ended(received, farewell)
        raise AssertionError("a link ends with Ended")

    def _ended(self, ended: Ended, farewell: pb.Farewell | None) -> str | None:
        """Why to join again, None if all is done."""
        if farewell is None:
            return ended.reason
        if not self.once:
            return "waiting for the next run"
        if farewell.run_done:
            return None
        raise RunFailed(f"the run ended before it was done: {one_line(farewell.reason[:200])}")

    def _welcomed(self, welcome: pb.Welcome, link: Link) -> None:
        self._pause, self._shard, self._unanswered = FIRST_PAUSE_SECONDS, welcome.shard, ""
        self._told.clear()
        self._was_welcome = True
        if self.entrance:
            self.entrance.welcomed()
            if welcome.renew and (request := self.entrance.request()):
                link.send(pb.FromNode(renewal=pb.Renewal(request=request)))
        if self.hello.WhichOneof("data") == "any_shard":
            self._takes_any_shard = True
            self.hello.shard = welcome.shard  # next time the same one: a restarted server does not know who had it
        data = "its own data" if welcome.shard < 0 else f"shard {welcome.shard} of {welcome.num_shards}"
        self.tell(f"joined {link.address} as {self.hello.name} with {data}")

    def _refused(self, refusal: pb.Refusal) -> None:
        """A node that has been welcome before keeps asking; it may ask for another shard if it never named one."""
        if refusal.enrol and self.entrance:
            self.entrance.turned_down()
        if self._takes_any_shard and self.hello.WhichOneof("data") == "shard":
            self.hello.any_shard = True
        elif not refusal.retry and not self._was_welcome:
            raise UsageError(f"the server refuses this node: {one_line(refusal.reason[:500])}")

    def _work(self, task: pb.Task, link: Link) -> None:
        key = (task.task, model_of(task))
        if self.spool.last and self.spool.last.key == key:
            self.tell("the server asks again for the last update: sending the same bytes")
            self._finish(_fitting(self.spool.last.update, link.max_message_bytes), link)
            return
        round_text = _round_of(task.task)
        token = watching.set(self._watch(task, link))
        try:
            message = _fitting(self._answer(task), link.max_message_bytes)
        except _Dropped:
            link.finish()
            self.tell(f"round {round_text}: dropped, the server no longer waits for it")
            return
        finally:
            watching.reset(token)
            self.show_progress("")
        update = message.update
        self.tell(f"round {round_text}: {update.error or _done(update, task.type)}")
        self._finish(message, link)
        if task.type != EVALUATE:  # kept after it was sent: a slow card holds up nobody
            self.spool.keep(key, update, survives_power_cut=link.is_over)
            self._look_at_threads(task.task, update)

    def _watch(self, task: pb.Task, link: Link) -> Callable[[float], None]:
        """What a fit is told its progress by, and ended by."""
        name, does = task.task, "testing" if task.type == EVALUATE else "training"

        def watch(fraction: float) -> None:
            if self.should_stop(0.0):
                raise Stopped("stopped")
            if name in link.cancelled:
                raise _Dropped
            link.fraction = fraction
            self.show_progress(f"round {_round_of(name)}: {does}, {fraction:.0%}")

        return watch

    def _look_at_threads(self, task: str, update: pb.Update) -> None:
        """Probe again if training became slow; after the update was sent, so that nobody waits for it."""
        if self.threads is None or update.error:
            return
        seconds, examples = update.metrics["fit-seconds"].real, update.metrics["num-examples"].integer
        if said := self.threads.finished(task.split("/")[0], seconds, examples):
            self.hello.machine.threads = self.threads.count
            self.tell(said)

    def _answer(self, task: pb.Task) -> pb.Update:
        try:
            message = from_task(task, node_id=1)
        except WireError as error:
            return pb.Update(task=task.task, error=str(error))
        node_config: dict[str, bool | float | int | str] = {
            "partition-id": self._shard,
            "threads": self.hello.machine.threads or 1,
        }
        if self.own_data:
            node_config["data"] = self.own_data
        context = Context(run_id=1, node_id=1, node_config=node_config, state=self._remembered, run_config={})
        return to_update(answer(self.app, message, context, let_through=(Stopped, _Dropped)), task.task)

    def _owed(self, owed: pb.Owed, link: Link) -> None:
        """The server takes an update after its round: if this node has it, it goes out once."""
        kept = self.spool.last
        if kept and kept.key == (owed.task, owed.model) and self._unanswered != owed.task:
            self.tell(f"round {_round_of(owed.task)}: the server still takes the update: sending it")
            link.send(_fitting(kept.update, link.max_message_bytes))
            self._unanswered = owed.task

    def _finish(self, message: pb.FromNode, link: Link) -> None:
        link.finish(message)
        self._unanswered = message.update.task

    def _judged(self, verdict: pb.Verdict) -> None:
        if verdict.task == self._unanswered:
            self._unanswered = ""
        self.spool.judged(verdict.task, verdict.verdict)
        reason = f": {verdict.reason[:300]}" if verdict.reason else ""
        self.tell(f"round {_round_of(verdict.task)}: {verdict.verdict[:20]}{reason}")

    def _tell_once(self, text: str) -> None:
        """Tell ``text`` once until the next welcome: a server that is away for days fills no log."""
        if text not in self._told:
            self._told.add(text)
            self.tell(text)


def _fitting(update: pb.Update, most: int) -> pb.FromNode:
    """The message of an update, or what to say in its place if the server would cut it off unread."""
    message = pb.FromNode(update=update)
    if (size := message.ByteSize()) <= most:
        return message
    error = f"the update has {size:,} bytes, this server takes at most {most:,}"
    return pb.FromNode(update=pb.Update(task=update.task, error=error))


def _round_of(task: str) -> str:
    """The round in a task's name, ``RUN/ROUND/NODE`` or ``RUN/ROUND/evaluate/NODE``."""
    parts = task.split("/")
    return parts[1][:12] if len(parts) > 2 else "?"


def _done(update: pb.Update, kind: str) -> str:
    """What a finished task came to, for a person."""
    metrics = dict(update.metrics)
    images = f"{metrics['num-examples'].integer:,} images"
    if kind == EVALUATE:
        return f"the new model knows {metrics['accuracy'].real:.2%} of the {images} held out here"
    return f"trained on {images} in {metrics['fit-seconds'].real:.1f} s, loss {metrics['train-loss'].real:.4f}"
