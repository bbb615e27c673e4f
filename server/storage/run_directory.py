"""The run directory: where every finished round goes, and where a run is found again.

A round is written in this order: the logs (synced), ``last.pt`` — from here on the round counts —
and, when it is the best so far, ``best.pt`` and ``best.json``. What a kill in between leaves is
mended by ``open_existing``: it cuts the logs back and writes ``best.*`` anew.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.errors import RunDirectoryError, RunFailed, RunFinished
from common.models import State, own_copy, weights_sha256
from common.settings import Settings
from common.training import Evaluation
from server.grids import Node
from server.report import NodeReport, Round, metrics_record
from server.storage import best as best_files
from server.storage import checkpoint as checkpoints
from server.storage import issued
from server.storage.checkpoint import Best, Checkpoint, Kept
from server.storage.durable import (
    append,
    cut,
    give_second_name,
    read_json_lines,
    remove_leftovers,
    sync_folder,
    to_json_lines,
    write_atomically,
)
from server.storage.folders import LEDGER, LOG, METRICS, hold, is_begun, make, taken, was_never_saved
from server.storage.log import run_log
from server.storage.settings import FILE as SETTINGS
from server.storage.settings import check_same, read_settings, write_settings

TENSORBOARD = "tensorboard"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class RunDirectory:
    """One run on disk, held by this process until ``close``. A context manager.

    Attributes:
        path: the directory.
        settings: what the run was asked for.
        checkpoint: the last round that is saved; None before round 0.
        notices: sentences for a person about what was mended on opening.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        """Lock ``path``, which exists, and open its log. Use ``create`` or ``open_existing``."""
        self.path = path
        self.settings = settings
        self.checkpoint: Checkpoint | None = None
        self.notices: list[str] = []
        self._run_id = secrets.token_hex(8)
        self._held = contextlib.ExitStack()
        try:
            self._held.callback(hold(path).release)
            self._asked_before = issued.asked(path)
            self._held.enter_context(run_log(path / LOG))
        except OSError as error:
            self._held.close()
            is_begun = (path / checkpoints.LAST).exists()
            cure = "mend that and resume again" if is_begun else "choose another folder with --out"
            raise RunDirectoryError(f"cannot write in run directory {path}: {error.strerror}; {cure}") from None

    @classmethod
    def create(cls, out: Path, name: str, settings: Settings, now: datetime | None = None) -> Self:
        """Make ``out/name``; an empty ``name`` becomes the date and time.

        Raises:
            RunDirectoryError: the name is taken, or the directory cannot be made.
        """
        run = None
        try:
            run = cls(make(out, name, now or datetime.now().astimezone()), settings)
            run._settle(out)
        except OSError as error:
            if run is not None:
                shutil.rmtree(run.path, ignore_errors=True)
                run.close()
            raise RunDirectoryError(
                f"cannot make a run directory in {out}: {error.strerror}; choose another folder with --out"
            ) from None
        return run

    @classmethod
    def open_existing(cls, path: Path) -> Self:
        """Open a run to go on with it: unfinished business of a killed server is undone or completed.

        One whose server was killed before round 0 was saved begins anew.

        Raises:
            RunDirectoryError: it is no run directory, in use, without a usable checkpoint, or cannot be written.
            SettingsError: its settings.yaml was edited into something invalid.
        """
        run = cls(path, read_settings(path))
        try:
            run._recover()
        except OSError as error:
            run.close()
            raise RunDirectoryError(f"cannot mend run directory {path}: {error.strerror}") from None
        except BaseException:
            run.close()
            raise
        return run

    @property
    def run_id(self) -> str:
        """16 hex digits, the same after every resume."""
        return self._run_id

    @property
    def best(self) -> Best | None:
        """The best round so far: higher accuracy, then lower loss, then the earlier one."""
        return self.checkpoint.best if self.checkpoint else None

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The objects of ``metrics.jsonl``, one a round from round 0."""
        return read_json_lines(self.path / METRICS)

    @property
    def tensorboard(self) -> Path:
        """The folder for TensorBoard."""
        return self.path / TENSORBOARD

    def continue_with(self, settings: Settings) -> None:
        """Go on with ``settings``, which may differ in what does not change the learning; more rounds are welcome.

        Raises:
            SettingsError: they would change what is learned, or ask for fewer rounds than are done.
            RunDirectoryError: the run is finished and no more rounds are asked for.
            RunFailed: ``settings.yaml`` cannot be written.
        """
        last = self.checkpoint
        check_same(self.settings, settings, last.round if last else 0)
        if last and last.finished and settings.federation.rounds <= last.rounds_total:
            raise RunFinished(
                f"{self.path} is finished: {last.round} of {last.rounds_total} rounds are done,"
                f" so there is nothing to resume; ask for more with --rounds"
            )
        with self._saying(SETTINGS):
            write_settings(self.path, settings)
        self.settings = settings

    def begin(self, state: State, evaluation: Evaluation) -> None:
        """Save round 0: the untrained model.

        Raises:
            RunFailed: it cannot be written.
        """
        self._save(0, state, evaluation, None, Kept())

    def commit(self, done: Round, evaluation: Evaluation, kept: Kept | None = None) -> bool:
        """Save a finished round and what the next one needs; True if its model is the best so far.

        Raises:
            RunFailed: something cannot be written; the text says which round is the last that is saved.
        """
        return self._save(done.number, done.state, evaluation, done, kept or Kept())

    def issue(self, number: int, nodes: Sequence[Node]) -> None:
        """Write down whom round ``number`` asks, before it does.

        Raises:
            RunFailed: it cannot be written.
        """
        with self._saying(issued.FILE):
            issued.begin(self.path, number, nodes)

    def with_lost(self, done: Round) -> Round:
        """The round with verdicts also on those of its tasks that only a server issued which has ended since."""
        known = {report.task for report in (*done.reports, *done.owed)}
        lost = issued.lost(self._asked_before, self._run_id, done.number, known)
        return replace(done, reports=tuple(sorted((*done.reports, *lost), key=lambda each: (each.shard, each.node))))

    def finish(self, unpaid: Sequence[NodeReport] = ()) -> None:
        """Save that no further round is wanted, and the verdicts on what nodes owe to the end.

        Raises:
            RunFailed: it cannot be written.
        """
        last, total = self._last(), self.settings.federation.rounds
        offsets = last.offsets | {LEDGER: self._append(LEDGER, [report.ledger_record() for report in unpaid])}
        self._commit(replace(last, finished=True, rounds_total=total, offsets=offsets, late={}))

    def close(self) -> None:
        """Close the log and let others open the run."""
        self._held.close()

    def __enter__(self) -> Self:
        """Held already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; a run that failed before round 0 was saved leaves nothing behind, not even its name."""
        if error is not None and self.checkpoint is None:
            shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def _save(self, number: int, state: State, evaluation: Evaluation, done: Round | None, kept: Kept) -> bool:
        own = own_copy(state)
        is_best = best_files.is_better(evaluation, self.best)
        if is_best or self.checkpoint is None:
            best_state = own_copy(done.average) if done and done.average else own
            best = Best(number, evaluation.accuracy, evaluation.loss, weights_sha256(best_state))
        else:
            best, best_state = self.checkpoint.best, self.checkpoint.best_state
        ledger = [report.ledger_record() for report in done.reports] if done else []
        offsets = {
            LEDGER: self._append(LEDGER, ledger),
            METRICS: self._append(METRICS, [metrics_record(number, evaluation, done, is_best)]),
        }
        self._commit(
            Checkpoint(
                run_id=self._run_id,
                round=number,
                rounds_total=self.settings.federation.rounds,
                finished=False,
                state=own,
                best_state=best_state,
                best=best,
                offsets=offsets,
                **kept.parts(),
            )
        )
        if is_best:
            self._write_best()
        return is_best

    def _append(self, name: str, records: list[dict[str, Any]]) -> int:
        offset = self.checkpoint.offsets.get(name, 0) if self.checkpoint else 0
        with self._saying(name):
            return append(self.path / name, offset, to_json_lines(records))

    def _commit(self, checkpoint: Checkpoint) -> None:
        with self._saying(checkpoints.LAST):
            checkpoints.save(self.path, checkpoint)
        self.checkpoint = checkpoint

    def _write_best(self) -> None:
        for name, content in best_files.contents(self._last(), self.settings).items():
            with self._saying(name):
                write_atomically(self.path / name, content)

    def _settle(self, out: Path) -> None:
        """Make a new folder, which is locked, that of this run."""
        if is_begun(self.path):  # by a server that was quicker
            self.close()
            raise taken(self.path)
        remove_leftovers(self.path)
        write_settings(self.path, self.settings)
        sync_folder(out)

    def _recover(self) -> None:
        for folder in (self.path, self.tensorboard):
            remove_leftovers(folder)
        if was_never_saved(self.path):
            return
        self.checkpoint, notice = checkpoints.load_last(self.path)
        self._run_id = self.checkpoint.run_id
        if notice:
            self.notices.append(notice)
            # The next save keeps last.pt as last.prev.pt: it must not be the damaged one.
            give_second_name(self.path / checkpoints.FORMER, self.path / checkpoints.LAST)
        for name, offset in self.checkpoint.offsets.items():
            end = self.checkpoint.offsets[name] = cut(self.path / name, offset)
            if end < offset:
                self.notices.append(f"{self.path / name} lost {offset - end} of its {offset} bytes; the run goes on")
        best = self.checkpoint.best
        if not best_files.is_written(self.path, best, self.settings):
            self.notices.append(f"{self.path / best_files.WEIGHTS} was not of round {best.round}: written anew")
            self._write_best()

    def _last(self) -> Checkpoint:
        assert self.checkpoint is not None, "round 0 is saved first"
        return self.checkpoint

    @contextlib.contextmanager
    def _saying(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cure = "free space" if error.errno in _NO_SPACE else "mend that"
            problem = f"cannot write {self.path / name}: {error.strerror}"
            if self.checkpoint is None:
                raise RunFailed(f"{problem}; nothing is saved yet\n{cure} and start again") from None
            raise RunFailed(
                f"{problem}; the run is saved up to round {self.checkpoint.round}\n"
                f"{cure} and continue with: python -m server --resume {shlex.quote(str(self.path))}"
            ) from None
