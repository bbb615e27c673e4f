"""Late work: an update that comes after its round joins a later average, or its node is told why it does not.

A late update was trained from an older model. What it learned there, the difference to that model,
is added to the model of now (Nguyen et al. 2022, FedBuff: averages of differences), and it counts
for fewer examples the older it is (Xie et al. 2019, Asynchronous Federated Optimization: polynomial
discount).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from common import flat
from common.arrays import to_encoded, to_state
from common.codecs import by_name
from common.models import State, own_copy
from common.settings import Settings
from common.wire import model_digest, pack
from server.arrivals import let_go
from server.broadcast import broadcast
from server.grids import Answer, Debt, Node, NodeGrid
from server.incoming import Origin
from server.link.roster import node_id
from server.memory import Plain
from server.report import NodeReport
from server.updates.owed import Owed, from_memory, to_memory
from server.updates.screening import Rejected, Screen, Screened

DISCOUNT_POWER = -0.5  # of 1 + the rounds that passed


class Accounted(NamedTuple):
    """What a round is about: its exchange, or once late work is accounted for, what has a verdict.

    Each late answer goes by a node id of its own.
    """

    answers: list[Answer]
    nodes: dict[int, Node]
    checked: list[Screened]  # those that are sound in themselves
    rejected: dict[int, str]  # reasons by node id


class LateWork:
    """What is owed from round to round, and the models that it began from."""

    def __init__(
        self,
        settings: Settings,
        run: str,
        grid: NodeGrid,
        screen: Screen,
        admits: Callable[[Node], bool],
        memory: Mapping[str, Plain],
    ) -> None:
        """Take updates for what was owed when the run was saved.

        Args:
            settings: of the run.
            run: its id.
            grid: whose nodes may be late.
            screen: for late updates, each against the model that it began from.
            admits: whether a node may still take part.
            memory: what ``memory`` gave then.

        Raises:
            RunDirectoryError: that is no memory.
        """
        self._run, self._grid, self._screen, self._admits = run, grid, screen, admits
        is_averaged = settings.run.baseline == "none"
        self._most = settings.federation.late_rounds if grid.takes_late and is_averaged else 0
        self._last_round = settings.federation.rounds
        self._owed, self._models = from_memory(memory)
        self._codec = by_name(settings.link.broadcast_codec, settings.link.top_k)
        self._digests = {number: self._digest(state) for number, state in self._models.items()}
        self._tell_grid()

    def account(self, number: int, state: State, exchanged: Accounted, budgets: Mapping[int, int]) -> Accounted:
        """Put aside what is owed now, and take in what came late.

        Args:
            number: the round, whose exchange is over.
            state: the model that it sent out.
            exchanged: what came of that.
            budgets: the most examples that the updates of these nodes may claim, by node id.
        """
        done = Accounted(
            list(exchanged.answers), dict(exchanged.nodes), list(exchanged.checked), dict(exchanged.rejected)
        )
        if self._most and number < self._last_round:
            self._put_aside(number, state, done, budgets)
        came = self._grid.late()
        for owed in sorted((o for o in self._owed.values() if o.task in came), key=_newest_first):
            self._take(owed, came[owed.task], number, state, done)
        for owed in list(self._owed.values()):
            if number >= min(owed.round + self._most, self._last_round):
                self._conclude(owed, owed.answer(_never(number - owed.round)), done)
        kept = {owed.round for owed in self._owed.values()}
        self._models = {number: model for number, model in self._models.items() if number in kept}
        self._digests = {number: digest for number, digest in self._digests.items() if number in kept}
        self._tell_grid()
        return done

    def memory(self) -> dict[str, Plain]:
        """What the next round needs; empty if nobody owes anything."""
        return to_memory(self._owed.values(), self._models)

    def unpaid(self) -> tuple[NodeReport, ...]:
        """What is owed, in order, as it would stand in the ledger if the run were over: all of it has expired."""
        return tuple(
            owed.report() for owed in sorted(self._owed.values(), key=lambda owed: (owed.round, owed.node.order))
        )

    def _put_aside(self, number: int, state: State, done: Accounted, budgets: Mapping[int, int]) -> None:
        """Take out of ``done`` what has no answer yet."""
        missing = [answer for answer in done.answers if answer.reply is None]
        done.answers[:] = [answer for answer in done.answers if answer.reply is not None]
        for answer in missing:
            node = done.nodes[answer.node_id]
            task = f"{self._run}/{number}/{node.name}"
            self._owed[task] = Owed(task, number, node, answer.reason, answer.seconds, budgets.get(node.node_id))
        if missing:
            self._models[number], self._digests[number] = own_copy(state), self._digest(state)

    def _take(self, owed: Owed, answer: Answer, number: int, state: State, done: Accounted) -> None:
        """Screen a late update and let it join, unless its node is set aside or the round has another of its shard."""
        why = "; it came late" + ("" if self._admits(owed.node) else ", and its node is set aside")
        if any(_is_of_same(update, owed.node) for update in done.checked):
            why += f", and round {number} has another update of this node or shard"
        if "," in why:
            self._conclude(owed, owed.answer(why, answer.bytes_up), done)
            return
        own = replace(answer, node_id=node_id(owed.task), late_for=owed.round)
        self._conclude(owed, own, done)
        assert own.reply is not None, "what came is an update"
        base = self._models[owed.round]
        try:
            origin = Origin.of(base, broadcast(base, self._codec, ()))
            update = self._screen.check(own.reply, done.nodes[own.node_id], origin, owed.budget)
            done.checked.append(rebased(update, base, state, number - owed.round))
        except Rejected as rejection:
            done.rejected[own.node_id] = rejection.reason
        if own.reply.has_content():
            let_go(own.reply.content)

    def _conclude(self, owed: Owed, answer: Answer, done: Accounted) -> None:
        del self._owed[owed.task]
        done.answers.append(answer)
        done.nodes[answer.node_id] = replace(owed.node, node_id=answer.node_id)

    def _digest(self, state: State) -> bytes:
        """Of the weights in the tasks that ``state`` went out with."""
        return model_digest(pack(to_encoded(state, self._codec)))

    def _tell_grid(self) -> None:
        if self._most:
            self._grid.owe(
                [Debt(o.task, o.node.node_id, self._digests[o.round], o.seconds) for o in self._owed.values()]
            )


def rebased(update: Screened, base: State, state: State, staleness: int) -> Screened:
    """``update``, trained from ``base``, as one from ``state``, ``staleness`` rounds later.

    Its weights become ``state`` + (its own - ``base``), computed in float64; for the average, its examples count
    (1 + staleness) ^ -0.5 times. What is reported of it stays as the node said it.
    """
    moved = {
        name: (state[name].double() + (value.double() - base[name].double())).to(value.dtype)
        for name, value in to_state(update.arrays).items()
    }
    arrays = flat.ArrayRecord(update.arrays.form, flat.vector_of(moved))
    return replace(update, arrays=arrays, counts=update.num_examples * (1 + staleness) ** DISCOUNT_POWER)


def _is_of_same(update: Screened, node: Node) -> bool:
    return update.node.name == node.name or (node.shard >= 0 and update.shard == node.shard)


def _newest_first(owed: Owed) -> tuple[int, tuple[int, str, int]]:
    return (-owed.round, owed.node.order)


def _never(rounds: int) -> str:
    return f", nor in {rounds} more round{'s' if rounds > 1 else ''}" if rounds else ""
