"""What TensorBoard gets beside the figures of a round, and when: it hardly slows a run, and never ends one."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator

import torch
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from torch import Tensor

from common.mnist import Images
from common.models import Network
from common.settings import Settings
from common.training import Evaluation, Prepare
from server.pictures.album import pictures
from server.pictures.mistakes import probabilities_of
from server.report import Round
from server.storage import summaries
from server.storage.overview import CHARTS, METRICS, TELLING, hyperparameters, settings_table
from server.storage.tensorboard import TensorBoardWriter

AFFORDABLE = 0.05  # of the seconds of a round
_LOG = logging.getLogger(__name__)


class Gallery:
    """Draws a run's model; what fails is logged and told once, and the run goes on without it."""

    def __init__(
        self,
        writer: TensorBoardWriter,
        settings: Settings,
        model: Network,
        test: Images,
        prepare: Prepare,
        warn: Callable[[str], None] = _LOG.warning,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            writer: what is drawn goes there.
            settings: of the run.
            model: holds the weights of a round when that round is shown.
            test: the test images.
            prepare: from these images to what the network reads.
            warn: told once that something could not be drawn.
            clock: seconds since some moment.
        """
        self._writer = writer
        self._settings = settings
        self._model = model
        self._test = test
        self._prepare = prepare
        self._warn = warn
        self._clock = clock
        self._seconds = 0.0  # that drawing and writing the model took the last time
        self._is_open = False
        self._has_failed = False

    def show(self, number: int, evaluation: Evaluation, done: Round | None = None) -> None:
        """Draw and write what is due after round ``number``, which is saved; without ``done``, after round 0.

        Args:
            number: the round, 0...
            evaluation: of its model; without answers in it, the model is not drawn.
            done: how it came about.
        """
        events = [] if self._is_open else self._drawn(lambda: self._opening(number))
        self._is_open = True
        if done is not None:
            events += self._drawn(lambda: _of_updates(done))
        self._writer.add(number, events)
        if evaluation.answers is not None and self._is_due(number, done):
            answers, start = evaluation.answers, self._clock()
            self._writer.add(number, self._drawn(lambda: self._of_model(answers)))
            self._seconds = self._clock() - start
            _LOG.info("round %d: drawn in %.3f s", number, self._seconds)

    def end(self, number: int, best_accuracy: float) -> None:
        """Write what a run ends with after round ``number``: its hyperparameters and best accuracy (0..1)."""
        self._writer.finish(number, self._drawn(lambda: self._ending(best_accuracy)))

    def _is_due(self, number: int, done: Round | None) -> bool:
        every = self._settings.tensorboard.images_every
        if every == 0:
            return False
        if done is None or number == self._settings.federation.rounds:
            return True  # no round follows that would have to wait
        return number % every == 0 and self._seconds <= AFFORDABLE * done.seconds

    def _opening(self, number: int) -> Iterator[Event]:
        yield summaries.text("settings", settings_table(self._settings))  # after a resume they may be others
        if number == 0:
            yield summaries.layout({"The run": CHARTS})
            if self._settings.tensorboard.images_every:
                yield summaries.graph(self._model, self._prepare(self._test.images[:1]))

    def _of_model(self, answers: Tensor) -> Iterator[Event]:
        for name, picture in pictures(self._model, self._test, self._prepare, answers):
            yield summaries.image(f"images/{name}", picture)
        for name, weights in self._model.state_dict().items():
            yield summaries.histogram(f"weights/{name}", weights)
        for digit, probabilities in enumerate(probabilities_of(answers).unbind(dim=1)):
            yield summaries.pr_curve(f"pr/digit_{digit}", self._test.labels == digit, probabilities)

    def _ending(self, best_accuracy: float) -> Iterator[Event]:
        yield summaries.scalars({METRICS[0]: best_accuracy})
        yield from summaries.hyperparameters(hyperparameters(self._settings), TELLING, METRICS)

    def _drawn(self, draw: Callable[[], Iterator[Event]]) -> list[Event]:
        """All that ``draw`` yields, or nothing."""
        try:
            return list(draw())
        except Exception as error:  # no picture is worth a run
            _LOG.exception("cannot draw for TensorBoard")
            if not self._has_failed:
                self._has_failed = True
                self._warn(
                    f"cannot draw for TensorBoard ({type(error).__name__}: {error}); the run goes on without these"
                    " pictures, and run.log says more"
                )
            return []


def _of_updates(done: Round) -> Iterator[Event]:
    norms = [report.norm for report in done.reports if report.verdict == "accepted" and math.isfinite(report.norm)]
    if norms:
        yield summaries.histogram("update/norm", torch.tensor(norms))
