"""Which folder a run gets: a new one, or the newest unfinished one; and one server at a time in it."""

import contextlib
from datetime import datetime
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from common.errors import RunDirectoryError
from server.storage.checkpoint import LAST, load_last


def make(out: Path, name: str, now: datetime) -> Path:
    """Make ``out/name``; an empty ``name`` becomes the date and time, with -2, -3, … where that is taken.

    Raises:
        RunDirectoryError: ``name`` is taken.
        OSError: the folder cannot be made.
    """
    out.mkdir(parents=True, exist_ok=True)
    if name:
        try:
            (out / name).mkdir()
        except FileExistsError:
            raise RunDirectoryError(
                f"run directory {out / name} exists and is never overwritten; choose another --name, or --resume it"
            ) from None
        return out / name
    stem = f"{now:%Y%m%d-%H%M%S}"
    for attempt in count(1):
        path = out / (stem if attempt == 1 else f"{stem}-{attempt}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError("count() has no end")


def newest_unfinished(out: Path) -> Path:
    """The run directory in ``out`` that was saved last and is not finished.

    Raises:
        RunDirectoryError: there is none, or the newest candidate holds no usable checkpoint.
    """
    saved = [path.parent for path in (out.glob(f"*/{LAST}") if out.is_dir() else ())]
    for path in sorted(saved, key=lambda run: (run / LAST).stat().st_mtime_ns, reverse=True):
        last, _ = load_last(path)
        if not last.finished:
            return path
    kind = "unfinished run" if saved else "run"
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
