"""``STATE/authority/members.json``: who is enrolled and the join tokens, one file that is changed as a whole.

Secrets are kept as their SHA-256. Every change is made under a lock and takes the file's place at once, so several
servers and subcommands may work with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from common.errors import UsageError
from common.state import write_private

_STRICT = ConfigDict(extra="forbid")


@dataclass(slots=True, config=_STRICT)
class IssuedToken:
    """A join token as the server remembers it."""

    secret_sha256: str
    ends: float | None  # seconds since 1970 on the server's clock; None = never
    reusable: bool
    used_by: str = ""  # the key of the node that a one-time token was spent on
    boot: str = ""  # until the machine starts again, the token ends by its uptime, whatever its clock is set to
    ends_uptime: float = 0.0  # seconds


@dataclass(slots=True, config=_STRICT)  # a thousand of them are read anew after each enrolment
class Member:
    """A node that was enrolled once."""

    key: str
    token: str  # the id of the token it came with
    enrolled: float  # seconds since 1970
    revoked: bool = False
    own_examples: int | None = None  # the most that it may have of its own; None = what it says when it joins next


class Content(BaseModel):
    """All that the file holds."""

    model_config = _STRICT

    tokens: dict[str, IssuedToken] = {}
    nodes: dict[str, Member] = {}
    revoked_keys: list[str] = []


class MembersFile:
    """The file in the folder of one authority; used from any thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "members.json"
        self._lock = FileLock(folder / "lock")
        self._seen: tuple[Any, Content] = (None, Content())

    def content(self) -> Content:
        """What the file says now; read again only when it was replaced.

        Raises:
            UsageError: it is damaged.
            OSError: it cannot be read.
        """
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        except FileNotFoundError:
            return Content()
        if stamp != self._seen[0]:
            self._seen = (stamp, self._read())
        return self._seen[1]

    @contextmanager
    def change(self) -> Iterator[Content]:
        """What the file says now, to be changed; it is written when the block ends well.

        Raises:
            UsageError: the file is damaged.
            OSError: it cannot be read or written; then it is unchanged.
        """
        with self._lock:
            content = self._read()
            yield content
            write_private(self._path, content.model_dump_json(indent=1).encode())

    def _read(self) -> Content:
        try:
            return Content.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return Content()
        except ValidationError:
            raise UsageError(
                f"{self._path} is damaged: restore it from a backup, or remove it, and then every node must enrol again"
            ) from None
