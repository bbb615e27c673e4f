"""Who this node is: a name no other live client on this machine has, and the key that proves it is the same node."""

import json
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from common.errors import UsageError
from common.names import NAME
from common.replacing import forget_unfinished
from common.state import state_dir, write_private

_KEY = re.compile(r"[0-9a-f]{32}")
_MAX_CLIENTS = 999  # clients with one default name on one machine
_MAX_FILE_BYTES = 4096


@dataclass(frozen=True)
class Identity:
    """A node's name and key; after a reboot the same, so the server lets the node in at once.

    Attributes:
        name: 1 to 63 letters, digits, ``.``, ``_`` and ``-``.
        key: 32 hex digits (128 random bits); a secret, so never printed.
        note: "" or something a person should know about the two.
    """

    name: str
    key: str = field(repr=False)
    note: str = ""


@contextmanager
def claim(name: str | None, shard: int | str | None) -> Iterator[Identity]:
    """Hold a name on this machine for as long as the context (or the process) lasts.

    Args:
        name: the name to take; None = the default of this host and shard, numbered if it is taken.
        shard: the shard's number, ``"auto"``, or None for a node with its own data.

    Raises:
        UsageError: the name is malformed or held by another live client, or the state folder is unusable.
    """
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(f"--name must be 1 to 63 letters, digits, '.', '_' or '-', got {name[:80]!r}")
    folder = state_dir() / "nodes"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock, taken = _lock(folder, name, default_name(socket.gethostname(), shard))
    except OSError as error:
        raise UsageError(_unusable(folder, error)) from None
    try:
        try:
            _forget_unfinished_keys(folder, taken)
            identity = _identity(folder, taken)
        except OSError as error:
            raise UsageError(_unusable(folder, error)) from None
        yield identity
    finally:
        lock.release()


def default_name(hostname: str, shard: int | str | None) -> str:
    """``pi-3`` for shard 3 on ``pi.local``; ``pi-auto``, ``pi-data`` where no shard is named; at most 59 characters."""
    host = re.sub(r"[^A-Za-z0-9._-]+", "-", hostname.partition(".")[0])[:40].strip("-._") or "node"
    what = "data" if shard is None else re.sub(r"[^A-Za-z0-9._-]+", "-", str(shard))[:18]
    return f"{host}-{what}"


def _lock(folder: Path, name: str | None, default: str) -> tuple[FileLock, str]:
    if name is not None:
        if (lock := _try_lock(folder, name)) is None:
            raise UsageError(
                f"the name {name} is in use by another client on this machine;"
                " give this one another with --name, or none to have one chosen"
            )
        return lock, name
    for number in range(1, _MAX_CLIENTS + 1):
        candidate = default if number == 1 else f"{default}-{number}"
        if (lock := _try_lock(folder, candidate)) is not None:
            return lock, candidate
    raise UsageError(f"{_MAX_CLIENTS} clients called {default} are running on this machine; name this one with --name")


def _try_lock(folder: Path, name: str) -> FileLock | None:
    # The kernel drops this lock with the process, however it ends, so no stale file ever bars a name.
    lock = FileLock(folder / f"{name}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _identity(folder: Path, name: str) -> Identity:
    path = folder / f"{name}.json"
    try:
        text = _read(path)
    except FileNotFoundError:
        return Identity(name, _make(path, name))
    if (key := _key(text)) is not None:
        path.chmod(0o600)  # a copy or a backup may have opened it to others
        return Identity(name, key)
    note = f"{path} was damaged, so node {name} has a new key: its server may take it for a new node at first"
    return Identity(name, _make(path, name), note)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


def _key(text: bytes) -> str | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    key = content.get("key") if isinstance(content, dict) else None
    return key if isinstance(key, str) and _KEY.fullmatch(key) else None


def _make(path: Path, name: str) -> str:
    key = secrets.token_hex(16)
    write_private(path, json.dumps({"name": name, "key": key}).encode())
    return key


def _forget_unfinished_keys(folder: Path, name: str) -> None:
    """Of this node, in all files that may hold one; nobody else writes them while this process has the name."""
    forget_unfinished(folder, f"{name}.json")
    for known_server in folder.glob("*/"):
        forget_unfinished(known_server, f"{name}.pem")


def _unusable(folder: Path, error: OSError) -> str:
    reason = error.strerror or error
    return f"cannot keep this node's name and key in {folder}: {reason}; name another place with FEDGE_STATE_DIR"
