"""The baseline without a federation: one model trained on all data, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from common import flat, models, optimizers
from common.errors import RunDirectoryError, RunFailed
from common.mnist import Images
from common.models import State, copy_state
from common.preprocessing import Preprocessing
from common.settings import Settings
from common.streams import stream
from common.training import FitResult, fit
from server.grids import Answer, Node, NodeGrid, Tasks
from server.memory import Plain
from server.phases import Phases
from server.report import NodeReport, Round

if TYPE_CHECKING:
    from server.console import Console

CENTRAL = "central"  # what the ledger calls the one machine
SHARD = 0  # it trains on the only shard, which is the whole training set
PROGRESS_SECONDS = 1.0  # between two words about how far a round is


class Centralized:
    """One model, trained on the whole training set with one optimizer that lives as long as the run.

    The order of examples is that of a federation of one node which holds the only shard.
    """

    def __init__(self, run_id: str, settings: Settings, images: Images, console: Console) -> None:
        self._run_id, self._settings, self._images, self._console = run_id, settings, images, console
        self._model = models.build(settings.model.name)
        self._optimizer = optimizers.build(settings.training, self._model.parameters())
        self._prepare = Preprocessing.of(settings.model, settings.preprocessing).prepare

    def rounds(self, state: State, memory: Mapping[str, Plain], numbers: Sequence[int]) -> Iterator[Round]:
        """Train for the rounds ``numbers``, each ``training.local_epochs`` epochs, yielding each when it is done.

        Args:
            state: the model before the first of these rounds.
            memory: what ``memory`` gave after it; not looked at before round 1.
            numbers: consecutive round numbers, from 1.

        Raises:
            RunDirectoryError: ``memory`` is not that of a run with these settings.
            RunFailed: the weights are no longer finite.
        """
        self._model.load_state_dict(state)
        if numbers and numbers[0] > 1:
            self._remember(memory)
        for number in numbers:
            yield self._round(number)

    def memory(self) -> dict[str, Plain]:
        """What the next round needs beside the model: the optimizer's state."""
        return {"optimizer": self._optimizer.state()}

    def _remember(self, memory: Mapping[str, Any]) -> None:
        try:
            self._optimizer.load_state(memory["optimizer"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunDirectoryError(
                f"the checkpoint's strategy_state holds no optimizer of this run ({error}); start a new run"
            ) from None

    def _round(self, number: int) -> Round:
        settings = self._settings
        self._console.round_started(number, settings.federation.rounds, 1)
        start = time.monotonic()
        result = fit(
            self._model,
            self._images.images,
            self._images.labels,
            self._prepare,
            settings.training,
            number,
            stream(settings.run.seed, number, SHARD),
            _paced(lambda fraction: self._console.progress(CENTRAL, fraction)),
            self._optimizer,
        )
        seconds = time.monotonic() - start
        self._console.delivered(CENTRAL)
        state = copy_state(self._model)
        if not all(bool(value.isfinite().all()) for value in state.values()):
            raise RunFailed(
                f"round {number} left weights that are not finite, and the run is saved up to the round before;"
                " try a smaller training.learning_rate"
            )
        return self._finished(number, state, result, seconds)

    def _finished(self, number: int, state: State, result: FitResult, seconds: float) -> Round:
        report = NodeReport(
            task=f"{self._run_id}/{number}/{CENTRAL}",
            round=number,
            node=CENTRAL,
            shard=SHARD,
            examples=result.num_examples,
            weights=flat.ArrayRecord(flat.form_of(state), flat.vector_of(state)),
            verdict="accepted",
            reason="",
            train_loss=result.train_loss,
            fit_seconds=seconds,
            seconds=seconds,
            bytes_down=0,
            bytes_up=0,
            threads=torch.get_num_threads(),
        )
        return Round(
            number=number,
            state=state,
            reports=(report,),
            averaged=True,
            train_loss=result.train_loss,
            share_of_data=1.0,
            seconds=seconds,
            fit_seconds=seconds,
            overhead_seconds=0.0,
            bytes_down=0,
            bytes_up=0,
            phases=Phases(train=seconds, train_median=seconds),
        )


class NoNodes(NodeGrid):
    """The grid of a run without nodes."""

    def nodes(self) -> list[Node]:
        """None."""
        return []

    def exchange(self, tasks: Tasks) -> list[Answer]:
        """There is nobody to send to."""
        raise AssertionError(f"{tasks.round_name}: a run without nodes sends no tasks")


def _paced(tell: Callable[[float], None]) -> Callable[[float], None]:
    """``tell``, called no more than once in ``PROGRESS_SECONDS``."""
    told = time.monotonic()

    def watch(fraction: float) -> None:
        nonlocal told
        if (now := time.monotonic()) - told >= PROGRESS_SECONDS:
            told = now
            tell(fraction)

    return watch
