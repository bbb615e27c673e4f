"""Named points at which a process can be killed or a call can fail, put around the calls of code that knows of none.

A point is a call that leaves the process (a file, a stream, a connection), the place of our code it comes from, what
it is about, and a moment of it::

    server/storage/durable.py:append fsync ledger.jsonl before
    server/link/session.py:_write send task during

``during`` means: half of the bytes were written, or a message was handed to gRPC and not waited for.
"""

import builtins
import errno
import io
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(f"{ROOT}/{folder}/" for folder in ("server", "client", "common"))
Deed = Literal["kill", "ENOSPC", "EROFS", "EIO"]
Result = TypeVar("Result")
LASTING_SECONDS = 1.5
_GROWS = {"open", "write", "mkdir", "link"}  # what a full disk refuses


@dataclass(frozen=True)
class Fault:
    """What happens at a point when it is passed for the ``occurrence``-th time (1..).

    A disk that is full (``ENOSPC``) or read-only (``EROFS``) stays so for ``LASTING_SECONDS``; a bad sector (``EIO``)
    fails one call.
    """

    point: str
    occurrence: int = 1
    deed: Deed = "kill"


class Injector:
    """Counts the points that this process passes, and strikes at one of them."""

    def __init__(self, fault: Fault | None, record: Path | None) -> None:
        """``record`` is a file that each point's name is appended to, one a line."""
        self._fault = fault
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if record else None
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._lasting: str | None = None  # the errno of a disk that stays broken for a while
        self._lasting_until = 0.0
        self._write = os.write  # before it is wrapped

    def around(
        self, call: str, target: str, act: Callable[[], Result], half: Callable[[], object] | None = None
    ) -> Result:
        """``act`` between its points; ``half`` does a part of it, where it has parts."""
        site = place_of_call()
        if site is None:
            return act()
        self._refuse_if_broken(call)
        name = f"{site} {call} {target}"
        self.passes(f"{name} before")
        if half is not None:
            self.passes(f"{name} during", half)
        result = act()
        self.passes(f"{name} after")
        return result

    def passes(self, point: str, half: Callable[[], object] = lambda: None) -> None:
        """Count a point; strike if it is the one."""
        if self.is_due(point):
            half()
            self.strike()

    def is_due(self, point: str) -> bool:
        """Count a point; whether to strike now."""
        with self._lock:
            self._passed[point] += 1
            if self._record is not None:
                self._write(self._record, f"{point}\n".encode())
            fault = self._fault
            return fault is not None and (point, self._passed[point]) == (fault.point, fault.occurrence)

    def strike(self) -> None:
        """Die, or fail the call."""
        assert self._fault, "nothing strikes without a fault"
        if self._fault.deed == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault.deed != "EIO":
            self._lasting, self._lasting_until = self._fault.deed, time.monotonic() + LASTING_SECONDS
        raise _error(self._fault.deed)

    def _refuse_if_broken(self, call: str) -> None:
        if time.monotonic() > self._lasting_until:
            return
        if self._lasting == "EROFS" or (self._lasting == "ENOSPC" and call in _GROWS):
            raise _error(self._lasting)


def place_of_call() -> str | None:
    """``file:function`` of the innermost frame of our code, None if there is none."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            return f"{frame.f_code.co_filename.removeprefix(f'{ROOT}/')}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


def wrap_files(injector: Injector) -> None:
    """Put points around every call by which our code changes files and folders."""
    for name in ("mkdir", "rmdir", "unlink", "chmod", "fsync"):
        _wrap_call(injector, name, 0)
    for name in ("replace", "rename", "link"):
        _wrap_call(injector, name, 1)
    _wrap_write(injector)
    _wrap_opens(injector)


def wrap_connections(injector: Injector) -> None:
    """Put points around the connections that our own code opens."""
    connect = socket.create_connection

    def connected(*arguments: Any, **named: Any) -> Any:
        return injector.around("connect", "server", lambda: connect(*arguments, **named))

    socket.create_connection = connected


def target_of(where: Any) -> str:
    """What a path or a descriptor is, the same in every run: no numbers, and ``~`` for a temporary file."""
    name = (Path(f"/proc/self/fd/{where}").readlink() if isinstance(where, int) else Path(where)).name
    if match := re.fullmatch(r"\.(.+)\.\d+\.(tmp|part)", name):
        name = f"{match[1]}~"
    name = re.sub(r"^\.key-.*", "key~", name)
    name = re.sub(r"^events\.out\.tfevents.*?(\.end)?(~?)$", r"events\1\2", name)
    return re.sub(r"[0-9a-f]{16,}", "CA", name)


def _wrap_call(injector: Injector, name: str, position: int) -> None:
    act = getattr(os, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if place_of_call() is None:
            return act(*arguments, **named)
        return injector.around(name, target_of(arguments[position]), lambda: act(*arguments, **named))

    setattr(os, name, wrapped)


def _wrap_write(injector: Injector) -> None:
    write = os.write

    def wrapped(descriptor: int, data: Any) -> int:
        if place_of_call() is None:
            return write(descriptor, data)
        half = memoryview(data)[: len(data) // 2]
        return injector.around(
            "write", target_of(descriptor), lambda: write(descriptor, data), lambda: write(descriptor, half)
        )

    os.write = wrapped


def _wrap_opens(injector: Injector) -> None:
    open_descriptor, open_file = os.open, io.open

    def descriptor(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if not flags & (os.O_WRONLY | os.O_RDWR) or place_of_call() is None:
            return open_descriptor(path, flags, *arguments, **named)
        return injector.around("open", target_of(path), lambda: open_descriptor(path, flags, *arguments, **named))

    def file(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+") or place_of_call() is None:
            return open_file(path, mode, *arguments, **named)
        if isinstance(path, int):
            return _Watched(open_file(path, mode, *arguments, **named), injector)
        opened = injector.around("open", target_of(path), lambda: open_file(path, mode, *arguments, **named))
        return _Watched(opened, injector)

    os.open = descriptor
    io.open = file  # type: ignore[assignment]  # the overloads are for its callers
    builtins.open = file  # type: ignore[assignment]


class _Watched:
    """A file object whose bytes go out with each write, with points around."""

    def __init__(self, file: Any, injector: Injector) -> None:
        self._file, self._injector = file, injector

    def write(self, data: Any) -> int:
        half = data[: len(data) // 2]
        return self._injector.around("write", self._target(), lambda: self._put(data), lambda: self._put(half))

    def truncate(self, size: int | None = None) -> int:
        return self._injector.around("truncate", self._target(), lambda: int(self._file.truncate(size)))

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _put(self, data: Any) -> int:
        size = int(self._file.write(data))
        self._file.flush()
        return size

    def _target(self) -> str:
        return target_of(self._file.fileno())


def _error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))
