"""The story of a run, from the untrained model to the best one."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from common import mnist, models, shards
from common.errors import Interrupted, RunFailed
from common.preprocessing import Preprocessing
from common.training import Evaluation, evaluate
from server.centralized import Centralized
from server.clock import ClockWatch
from server.console import Console
from server.gathering import Cohort, Waiting, gather, sample
from server.grids import NodeGrid, Verdict
from server.link.roster import node_id
from server.local_only import LocalOnly
from server.memory import Plain
from server.plan import planned
from server.report import Round
from server.rounds import rounds
from server.stopping import StopRequest
from server.storage.checkpoint import Kept
from server.storage.gallery import Gallery
from server.storage.run_directory import RunDirectory
from server.storage.tensorboard import TensorBoardWriter
from server.summary import Row, Summary
from server.time_boxes import TimeBoxes
from server.updates.late import LateWork
from server.updates.strikes import Strikes

_LOG = logging.getLogger(__name__)


def conduct(run: RunDirectory, grid: NodeGrid, console: Console, stop: StopRequest) -> None:
    """Train round after round until all are done; every finished round is saved before the next begins.

    Raises:
        RunFailed: too few nodes, no usable update for several rounds, or a disk that takes no more.
        Interrupted: a stop was requested; the last finished round is saved.
    """
    Conductor(run, grid, console, stop).conduct()


@dataclass
class Conductor:
    """One run on one grid."""

    run: RunDirectory
    grid: NodeGrid
    console: Console
    stop: StopRequest

    def conduct(self) -> None:
        """See ``conduct`` above."""
        settings = self.run.settings
        parts = shards.partition(mnist.load_labels("train"), settings.data, settings.run.seed)
        self._set_up(parts)
        if self.run.checkpoint is None:
            self._begin()
        if self.stop.requested:  # while data was read: a round may take hours
            raise Interrupted("no round was begun")
        try:
            for done in self._rounds(parts):
                self._keep(done)
        finally:
            self._tensorboard.close()
        self._end()

    def _set_up(self, parts: Sequence[shards.Indices]) -> None:
        """All that one round after another works with, as the last checkpoint left it."""
        settings = self.run.settings
        self._test = mnist.load("test")
        self._model = models.build(settings.model.name)
        self._prepare = Preprocessing.of(settings.model, settings.preprocessing).prepare
        counters = self.run.checkpoint.counters if self.run.checkpoint else {}
        self._failed = counters.get("failed_rounds", 0)
        self._write_seconds = math.nan  # what saving the round before took; after a resume nobody knows
        self._strikes = Strikes(settings.federation.max_strikes, counters)
        self._clock = ClockWatch()
        self._look_at_clock()
        sizes = [len(part) for part in parts]
        seconds = settings.federation.time_box_seconds
        self._boxes = TimeBoxes(seconds, settings.training, sizes, counters) if seconds else None
        first_step = self.run.checkpoint.round + 1 if self.run.checkpoint else 0
        self._tensorboard = TensorBoardWriter(self.run.tensorboard, first_step, self.console.notice)
        self._gallery = Gallery(
            self._tensorboard, settings, self._model, self._test, self._prepare, self.console.notice
        )

    def _rounds(self, parts: Sequence[shards.Indices]) -> Iterator[Round]:
        """The rounds that are still to do, each once it is done; ``self._memory`` is what the next one needs of it."""
        settings, last = self.run.settings, self.run.checkpoint
        assert last is not None, "round 0 is saved by now"
        self._memory: Callable[[], dict[str, Plain]] = dict
        self._late: LateWork | None = None
        self._first_round = last.round + 1
        numbers = range(self._first_round, settings.federation.rounds + 1)
        if settings.run.baseline == "centralized":
            central = Centralized(self.run.run_id, settings, mnist.load("train"), self.console)
            self._memory = central.memory
            return central.rounds(last.state, last.strategy_state, numbers)
        plan = planned(self.run, self.grid, parts, self._strikes, self._boxes, self._say_begun)
        self._late = plan.late
        codec = plan.screen.codec
        self.grid.restore(last.nodes)
        if codec and codec.keeps_error and settings.simulation.nodes and last.round and not last.nodes:
            self.console.notice(
                f"what the virtual nodes had still to say (link.codec {codec.name}) is gone with the stop: the"
                " run goes on a little otherwise than it would have without"
            )
        if settings.run.baseline == "local-only":
            start = models.initial_state(settings.model.name, settings.run.seed)
            alone = LocalOnly(self.grid, plan, start, self._evaluate)
            self._memory = alone.memory
            return alone.rounds(last.strategy_state, numbers, self._cohort)
        self._memory = plan.memory
        return rounds(self.grid, plan, last.state, numbers, self._cohort)

    def _begin(self) -> None:
        """Evaluate and save the untrained model, so that a run can be resumed from its first moment."""
        settings = self.run.settings
        state = models.initial_state(settings.model.name, settings.run.seed)
        evaluation = self._evaluate(state, with_answers=True)
        start = time.monotonic()
        self._tensorboard.write(0, evaluation)
        self.run.begin(state, evaluation)
        self.console.round_done(None, 0, evaluation, True, settings.federation.rounds)
        self._gallery.show(0, evaluation)
        self._write_seconds = time.monotonic() - start

    def _cohort(self, number: int) -> Cohort:
        """The nodes of a round; a server waits for all that were asked for before its first, later fewer will do."""
        federation = self.run.settings.federation
        wanted = federation.min_nodes
        wanted_by = "federation.min_nodes"
        if number == self._first_round and (all_left := federation.clients - self._strikes.num_aside) >= wanted:
            wanted, wanted_by = all_left, "--clients"
        nodes = gather(
            self.grid,
            wanted,
            federation.wait_seconds,
            lambda: self.stop.requested,
            self._show_waiting,
            self._strikes.admits,
            wanted_by,
        )
        settings = self.run.settings
        # Virtual nodes are never late, and nodes alone are not averaged: there, more would be asked for nothing.
        is_race = not settings.simulation.nodes and settings.run.baseline == "none"
        over_selection = federation.over_selection if is_race else 0.0
        return sample(nodes, federation.fraction, settings.run.seed, number, over_selection)

    def _say_begun(self, number: int, num_nodes: int) -> None:
        self.console.round_started(number, self.run.settings.federation.rounds, num_nodes)

    def _show_waiting(self, waiting: Waiting) -> None:
        self.console.waiting(waiting, self.run.settings.data.num_shards)

    def _keep(self, done: Round) -> None:
        """Evaluate and save a finished round, then tell everyone."""
        done, aside = self._strikes.judged(self.run.with_lost(done))
        self._failed = 0 if done.averaged else self._failed + 1
        start = time.monotonic()
        done = done.digested()
        digesting = time.monotonic() - start
        done, evaluation = self._tested(done)
        start = time.monotonic()
        self._tensorboard.write(done.number, evaluation, done)  # first: a resume hides what was not committed
        is_best = self.run.commit(done, evaluation, self._kept())
        _log(done, evaluation)
        self.grid.settle(
            Verdict(node_id(report.node), report.task, report.verdict, report.reason) for report in done.reports
        )
        self.console.round_done(done, done.number, evaluation, is_best, self.run.settings.federation.rounds)
        self._gallery.show(done.number, evaluation, done)
        self._write_seconds = digesting + time.monotonic() - start
        self._look_at_clock()
        for name in aside:
            self.console.notice(f"{name} is set aside for the rest of the run: its updates were unusable")
        self._go_on(done)

    def _go_on(self, done: Round) -> None:
        """Nothing, unless the run has to end after this round.

        Raises:
            RunFailed: for several rounds no update was usable, or none can be any more.
            Interrupted: a stop was requested.
        """
        federation = self.run.settings.federation
        if self._failed >= federation.max_failed_rounds or (self._failed and self._all_are_aside()):
            reasons = "; ".join(f"{each.node}: {each.reason}" for each in (*done.reports, *done.owed)[:3])
            raise RunFailed(
                f"{self._failed} rounds in a row had no usable update ({reasons});"
                f" all that was learned is in {self.run.path}"
            )
        if self.stop.requested and done.number < federation.rounds:
            raise Interrupted(f"round {done.number} is saved")

    def _end(self) -> None:
        """All rounds are done: save that, and show them."""
        assert self.run.best is not None, "round 0 is saved by now"
        self._gallery.end(self.run.settings.federation.rounds, self.run.best.accuracy)
        self.run.finish(self._late.unpaid() if self._late else ())
        self.console.finished(Summary(self.run.path, tuple(Row.from_metrics(row) for row in self.run.metrics)))

    def _kept(self) -> Kept:
        counters = {"failed_rounds": self._failed} | self._strikes.counters
        return Kept(
            strategy_state=self._memory(),
            counters=counters | (self._boxes.counters if self._boxes else {}),
            late=self._late.memory() if self._late else {},
            nodes=self.grid.memory(),
        )

    def _look_at_clock(self) -> None:
        if warning := self._clock.look():
            _LOG.warning("%s", warning)
            self.console.notice(warning)

    def _tested(self, done: Round) -> tuple[Round, Evaluation]:
        """A round, which now knows all its phases, and its model's figures on the test set."""
        start = time.monotonic()
        evaluation = self._evaluate(done.model, with_answers=True)
        on_nodes = 0.0 if math.isnan(done.phases.evaluate) else done.phases.evaluate
        seconds = on_nodes + time.monotonic() - start
        return replace(done, phases=replace(done.phases, evaluate=seconds, write=self._write_seconds)), evaluation

    def _all_are_aside(self) -> bool:
        """Whether nobody is left who could be asked; while a node is still to come back, a run waits for it."""
        present = self.grid.nodes()
        return bool(present) and not any(map(self._strikes.admits, present))

    def _evaluate(self, state: models.State, with_answers: bool = False) -> Evaluation:
        self._model.load_state_dict(state)
        return evaluate(self._model, self._test.images, self._test.labels, self._prepare, with_answers=with_answers)


def _log(done: Round, evaluation: Evaluation) -> None:
    _LOG.info(
        "round %d: accuracy %.4f, loss %.4f, %d accepted, %d rejected, %d expired, %.2f s",
        *(done.number, evaluation.accuracy, evaluation.loss, done.num_nodes, done.num_rejected, done.num_expired),
        done.seconds,
    )
    for report in done.reports:
        if report.reason:
            _LOG.info("%s of %s %s: %s", report.task, report.node, report.verdict, report.reason)
    for each in done.owed:
        if each.round == done.number:
            _LOG.info("%s of %s may still come: %s", each.task, each.node, each.reason)
