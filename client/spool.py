"""The last finished update of a node, kept on disk so that neither a broken link nor a killed process wastes it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from common import fleet_pb2 as pb
from common.replacing import forget_unfinished
from common.state import private_folder, write_private
from common.wire import MAX_TASK_BYTES

FOLDER = "updates"  # in the state folder
_MAX_HEAD_BYTES = 1024
Key = tuple[str, bytes]  # a task's name, and which weights it came with: see ``common.wire.model_of``


@dataclass(frozen=True)
class Kept:
    """An update, and which task on which model it answers."""

    key: Key
    update: pb.Update


class Spool:
    """One update at most, in memory and in ``FOLDER/NAME.update``.

    The file is one line of JSON (task, model, SHA-256 of the rest) and the bytes of the message. What cannot be written
    is kept in memory alone, which is said once; what cannot be trusted is removed.
    """

    def __init__(self, state: Path | None = None, name: str = "", tell: Callable[[str], None] = lambda _: None) -> None:
        """Look for what a former process left.

        Args:
            state: the state folder; None = memory alone.
            name: the node's.
            tell: told a line when the disk fails or a file is removed.
        """
        self._name, self._tell = name, tell
        self._is_failing = False
        self._path = None if state is None else state / FOLDER / f"{name}.update"
        self.last: Kept | None = None
        if self._path is not None:
            self.last = self._found(self._path)

    def keep(self, key: Key, update: pb.Update, survives_power_cut: bool = False) -> None:
        """Put ``update`` in the place of the one before.

        An error is kept in memory alone: whoever starts the node again may have mended its cause. Only an update that
        could not be sent is worth the wait for the disk: a power cut takes it, and nothing else has it.
        """
        self.last = Kept(key, update)
        if update.error:
            self._remove()
        else:
            self._write(self.last, survives_power_cut)

    def judged(self, task: str, verdict: str) -> None:
        """A final verdict: the file is of no more use, and what is removed soon need never reach the card."""
        if self.last and self.last.key[0] == task and verdict in {"accepted", "rejected"}:
            self._remove()

    def _found(self, path: Path) -> Kept | None:
        try:
            forget_unfinished(path.parent, path.name)
            return _read(path, self._name)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(error)
            return None
        except ValueError as error:
            self._tell(f"{path} {error}: removed")
            self._remove()
            return None

    def _write(self, kept: Kept, survives_power_cut: bool) -> None:
        if self._path is None:
            return
        try:
            private_folder(self._path.parent)
            write_private(self._path, _to_bytes(kept), survives_power_cut=survives_power_cut)
            self._is_failing = False
        except OSError as error:
            self._warn(error)
            self._remove()  # the one before, which is no longer the last

    def _remove(self) -> None:
        if self._path is None:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._tell(
                f"cannot keep updates in {self._path}: {error.strerror}; training goes on, a restart forgets them"
            )


def _to_bytes(kept: Kept) -> bytes:
    body = kept.update.SerializeToString(deterministic=True)
    task, model = kept.key
    head = {"task": task, "model": model.hex(), "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(head).encode() + b"\n" + body


def _read(path: Path, name: str) -> Kept:
    """What ``_to_bytes`` wrote for the node ``name``.

    Raises:
        OSError: there is nothing that can be read.
        ValueError: it is something else; the text goes on from the file's name.
    """
    if path.stat().st_size > MAX_TASK_BYTES:
        raise ValueError("is larger than any update")
    line, _, body = path.read_bytes().partition(b"\n")
    try:
        head = json.loads(line[:_MAX_HEAD_BYTES])
        task, model = head["task"], bytes.fromhex(head["model"])
        is_intact = head["sha256"] == hashlib.sha256(body).hexdigest()
        update = pb.Update.FromString(body) if is_intact else pb.Update()
    except (ValueError, KeyError, TypeError, RecursionError, DecodeError):
        raise ValueError("is damaged") from None
    if not is_intact:
        raise ValueError("is damaged")
    if update.task != task or task.rpartition("/")[2] != name or update.error:
        raise ValueError(f"is no update of node {name}")
    return Kept((task, model), update)
