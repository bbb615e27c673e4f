"""Files that survive a kill or a power cut: complete or absent, appended whole or cut back.

The pattern is the one of ``rename(2)`` and ``fsync(2)``: a temporary file in the same folder is
written and synced, renamed over the final name, and the folder is synced so that the name lasts.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def write_atomically(path: Path, data: bytes) -> None:
    """Give ``path`` the content ``data``: after a crash it holds all of the old or all of the new.

    Raises:
        OSError: nothing was changed and nothing is left behind.
    """
    with _written_beside(path, data) as fresh:
        fresh.replace(path)
    sync_folder(path.parent)


def replace_keeping(path: Path, former: Path, data: bytes) -> None:
    """As ``write_atomically``, and the content before is kept as ``former``; ``path`` is never absent.

    Raises:
        OSError: ``path`` was not changed and nothing is left behind.
    """
    with _written_beside(path, data) as fresh:
        if path.exists():
            give_second_name(path, former)
        fresh.replace(path)
    sync_folder(path.parent)


def give_second_name(path: Path, name: Path) -> None:
    """Let ``name``, in the same folder, hold what ``path`` holds, at once; copies where links are not supported."""
    link = _temporary(name)
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(path)
    except OSError:
        write_atomically(name, path.read_bytes())
        return
    try:
        link.replace(name)
    finally:
        # A rename between two names of one file does nothing, by POSIX, and would leave this one behind.
        link.unlink(missing_ok=True)


def append(path: Path, offset: int, data: bytes) -> int:
    """Write ``data`` at byte ``offset``, the end of what counts in ``path``, and sync it; returns the new end.

    Raises:
        OSError: the file was cut back to ``offset``.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.truncate(offset)
        file.seek(offset)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(offset)
            raise
    return offset + len(data)


def cut(path: Path, offset: int) -> int:
    """Cut the log ``path`` back to ``offset`` bytes, and to the whole lines among these. Returns its size."""
    data = path.read_bytes() if path.exists() else b""
    end = sum(map(len, _whole_lines(data[:offset])))
    if len(data) > end:
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
    return end


def to_json_lines(records: Iterable[dict[str, Any]]) -> bytes:
    """One JSON object a line, UTF-8."""
    return b"".join(json.dumps(record, allow_nan=False).encode() + b"\n" for record in records)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a log up to a torn tail, if there is one; none if there is no file."""
    return [json.loads(line) for line in _whole_lines(path.read_bytes() if path.exists() else b"")]


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _whole_lines(data: bytes) -> Iterator[bytes]:
    """The lines of a log, each with its end, up to the first that is torn."""
    for line in data.splitlines(keepends=True):
        try:
            json.loads(line)
        except ValueError:  # after a power cut the tail may also be a run of zeros
            return
        if not line.endswith(b"\n"):
            return
        yield line


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextlib.contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A synced temporary file beside ``path``, removed if it was not renamed."""
    fresh = _temporary(path)
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # a nearly full disk takes a part and refuses the next
        rest = rest[os.write(descriptor, rest) :]
