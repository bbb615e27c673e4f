"""Writes a file so that it is complete or absent, whatever happens meanwhile."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_UNFINISHED = ".part"


@contextmanager
def replacing(target: Path, *, survives_power_cut: bool = True) -> Iterator[BinaryIO]:
    """A file that takes the place of ``target`` once all of it is on disk; gone if the block fails.

    Several processes may do so at once: the last one wins. A killed one leaves a file behind that
    ``forget_unfinished`` removes. Where it need not survive a power cut, the disk is not waited for: a kill leaves it
    complete or absent all the same.

    Raises:
        OSError: the disk is full, the folder is missing or read-only.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}{_UNFINISHED}")
    try:
        with part.open("wb") as sink:
            yield sink
            sink.flush()
            if survives_power_cut:
                os.fsync(sink.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def forget_unfinished(folder: Path, name: str | None = None) -> None:
    """Remove what killed writers of all files in ``folder``, or of the one called ``name``, left there.

    A writer still alive fails at its end.

    Raises:
        OSError: the folder is read-only.
    """
    for part in folder.glob(f".*{_UNFINISHED}"):
        if name in (None, part.name[1:].rsplit(".", 2)[0]):
            part.unlink(missing_ok=True)
