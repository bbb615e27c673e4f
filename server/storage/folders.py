"""Which folder a run gets: a new one, or the newest unfinished one; and one server at a time in it."""

import contextlib
from datetime import datetime
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from common.errors import RunDirectoryError
from server.storage.checkpoint import LAST, load_last
from server.storage.durable import read_json_lines
from server.storage.settings import FILE as SETTINGS

METRICS, LEDGER, LOG = "metrics.jsonl", "ledger.jsonl", "run.log"
BEFORE_ROUND_0 = {SETTINGS, LOG, METRICS, LEDGER, "tensorboard"}


def make(out: Path, name: str, now: datetime) -> Path:
    """Make ``out/name``; an empty ``name`` becomes the date and time, with -2, -3, … where that is taken.

    A folder that a server made and was killed before it wrote its settings there is nobody's, and is taken.

    Raises:
        RunDirectoryError: ``name`` is taken.
        OSError: the folder cannot be made.
    """
    out.mkdir(parents=True, exist_ok=True)
    if name:
        try:
            (out / name).mkdir()
        except FileExistsError:
            if not _is_abandoned(out / name):
                raise taken(out / name) from None
        return out / name
    stem = f"{now:%Y%m%d-%H%M%S}"
    for attempt in count(1):
        path = out / (stem if attempt == 1 else f"{stem}-{attempt}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError("count() has no end")


def taken(path: Path) -> RunDirectoryError:
    """What to say when ``path`` is another run's."""
    return RunDirectoryError(
        f"run directory {path} exists and is never overwritten; choose another --name, or --resume it"
    )


def is_begun(path: Path) -> bool:
    """Whether a run has begun in ``path``: its settings are there."""
    return (path / SETTINGS).is_file()


def was_never_saved(path: Path) -> bool:
    """Whether nothing can be lost of the run in ``path``: its server was killed before round 0 was saved."""
    held = {found.name for found in path.iterdir() if not found.name.startswith(".")}
    return SETTINGS in held and held <= BEFORE_ROUND_0 and len(read_json_lines(path / METRICS)) <= 1


def newest_unfinished(out: Path) -> Path:
    """The run directory in ``out`` that was saved (or, if it never was, begun) last and is not finished.

    Raises:
        RunDirectoryError: there is none, or the newest candidate holds no usable checkpoint.
    """
    begun = {path.parent for name in (LAST, SETTINGS) for path in (out.glob(f"*/{name}") if out.is_dir() else ())}
    for path in sorted(begun, key=_touched, reverse=True):
        if was_never_saved(path) or not load_last(path)[0].finished:
            return path
    kind = "unfinished run" if begun else "run"
    raise RunDirectoryError(
        f"nothing to resume: {out} holds no {kind}; start one without --resume, or name its directory"
    )


def hold(path: Path) -> FileLock:
    """Lock the run directory ``path`` for this process; the system lets go of it when the process dies.

    Raises:
        RunDirectoryError: another server holds it.
        OSError: the lock file cannot be written.
    """
    lock = FileLock(path / ".lock", blocking=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunDirectoryError(
            f"run directory {path} is in use by another server; stop that one first or start a new run"
        ) from None
    return lock


def _is_abandoned(path: Path) -> bool:
    return path.is_dir() and all(found.name.startswith(".") or found.name == LOG for found in path.iterdir())


def _touched(path: Path) -> int:
    """When the run was saved last, or else begun; nanoseconds since 1970."""
    saved = path / LAST
    return (saved if saved.exists() else path / SETTINGS).stat().st_mtime_ns
