"""Worker processes that run a ClientApp for the simulation, each on a pipe of its own."""

import gc
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkContext, SpawnContext

import psutil
import torch
from flwr.app import Context, Message, RecordDict

from common import fleet_pb2 as pb
from common.errors import Interrupted, RunFailed
from common.records import answer, identify
from common.wire import from_task, to_update
from server.heap import keep_freed_memory, share_one_heap

ClientApp = Callable[[Message, Context], Message]
Replies = Callable[[Sequence[Message], Sequence[Context]], Iterable[Message]]
# Tasks as they travel on the link, in two parts, and whose each is: a part of several tasks crosses a pipe once.
Work = list[tuple[bytes, bytes, Context]]
Done = list[tuple[bytes, RecordDict]]  # updates likewise, and what each node remembers: its next task may go elsewhere

_SIGNALS = {signal.SIGINT, signal.SIGTERM}


class Workers:
    """``num_workers`` processes. They begin to start at once, while this one goes on."""

    def __init__(self, client_app: str, num_workers: int, together: str = "") -> None:
        """See ``server.simulation``."""
        replies(client_app, together)  # imports what they need, before they are forked
        context = _context()
        # Nothing is ever sent: the writing end is this process's alone, and closed when it ends, however it does.
        workers_end, self._life = context.Pipe(duplex=False)
        not_theirs = self._life if isinstance(context, ForkContext) else None
        self._pipes: list[Connection] = []
        self._processes = []
        with _signals_held_back():
            for _ in range(num_workers):
                ours, theirs = context.Pipe()
                given = client_app, together, theirs, workers_end, not_theirs
                process = context.Process(target=_serve, args=given, daemon=True)
                process.start()
                theirs.close()  # so that its end is noticed here
                self._pipes.append(ours)
                self._processes.append(process)
        workers_end.close()

    def run(self, works: Iterable[Work]) -> Iterator[Done]:
        """Do ``works``, as many at once as there are workers; what comes of each, in their order.

        Raises:
            RunFailed: a worker died.
        """
        waiting = iter(enumerate(works))
        in_hand: dict[Connection, int] = {}  # one each: two that send to each other would wait for ever
        done: dict[int, Done] = {}
        number = 0
        try:
            for pipe in self._pipes:
                _hand_out(pipe, waiting, in_hand)
            while in_hand or done:
                if number in done:
                    yield done.pop(number)
                    number += 1
                    continue
                ready = wait(list(in_hand))
                for pipe in [each for each in in_hand if each in ready]:
                    done[in_hand.pop(pipe)] = pipe.recv()
                    _hand_out(pipe, waiting, in_hand)
        except (EOFError, OSError):
            raise RunFailed("a simulation worker died (out of memory?); try fewer with simulation.workers") from None

    def end(self) -> None:
        """Whatever the workers have in hand: nobody waits for it any more."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in (*self._pipes, self._life):
            pipe.close()


def replies(client_app: str, together: str) -> Replies:
    """What gives the replies to several messages, in order; see ``server.simulation``."""
    if together:
        found: Replies = importlib.import_module(together).replies
        return found
    module, _, attribute = client_app.partition(":")
    app: ClientApp = getattr(importlib.import_module(module), attribute)
    return lambda messages, contexts: (
        answer(app, *each, let_through=(Interrupted,)) for each in zip(messages, contexts, strict=True)
    )


def how_many(together: str, messages: Sequence[Message]) -> int:
    """How many of ``messages`` are best answered by one process at once."""
    if not together or not messages:
        return 1
    found: int = importlib.import_module(together).how_many(messages[0])
    return found


def _hand_out(pipe: Connection, waiting: Iterator[tuple[int, Work]], in_hand: dict[Connection, int]) -> None:
    """Send the next work, if there is one."""
    for number, work in waiting:
        pipe.send(work)
        in_hand[pipe] = number
        return


def _context() -> ForkContext | SpawnContext:
    """How processes are to be started: as forks of this one, which has imported all they need, if it has one thread.

    Of two, the other might hold a lock, which in a fork nobody would ever release. macOS's own libraries bear no fork.
    """
    is_safe = sys.platform == "linux" and psutil.Process().num_threads() == 1
    return multiprocessing.get_context("fork") if is_safe else multiprocessing.get_context("spawn")


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Processes started meanwhile begin with Ctrl-C and SIGTERM blocked; what comes here comes a moment later."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _serve(
    client_app: str, together: str, pipe: Connection, parents_life: Connection, not_ours: Connection | None
) -> None:
    """Work until killed. Signals to the whole group are the parent's business; its end is the workers'."""
    if not_ours:
        not_ours.close()  # the parent's end of its life: a fork has it too
    share_one_heap()
    keep_freed_memory()
    gc.freeze()  # what was imported before the fork: looking for garbage there would copy 50 MB of it
    os.setpgid(0, 0)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # what has come already is forgotten
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with, args=(parents_life,), daemon=True).start()
    torch.set_num_threads(1)
    answers = replies(client_app, together)
    try:
        while True:
            pipe.send(_done(answers, pipe.recv()))
    except (EOFError, OSError):
        return  # the parent was killed


def _end_with(parents_life: Connection) -> None:
    parents_life.poll(None)
    os._exit(1)


def _done(answers: Replies, work: Work) -> Done:
    contexts = [context for _, _, context in work]
    identify(run_id=1, node_id=contexts[0].node_id)
    messages = [from_task(pb.Task.FromString(shared + own), context.node_id) for shared, own, context in work]
    updates = [to_update(reply, task="").SerializeToString() for reply in answers(messages, contexts)]
    return [(update, context.state) for update, context in zip(updates, contexts, strict=True)]
