"""Who is enrolled with this server, and the join tokens that let others in: the rules."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from common.errors import UsageError
from common.names import NAME
from common.state import write_private
from common.token import Token, parse_token
from server.admission.members_file import Content, IssuedToken, Member, MembersFile
from server.clock import boot_id, uptime_seconds

LOCAL_TOKEN = "local-token"  # noqa: S105  # the file's name; who can read this folder needs no other token
TOKEN_HOURS = 24.0  # how long a join token lasts unless told otherwise
MAX_NODES = 10_000  # that were ever enrolled
MAX_HOURS = 24 * 366 * 10
MAX_TOKENS = 1000  # the oldest make way: every start of a server issues one
_LOCAL = "local"


class NotEnrolled(ValueError):
    """Who asks may not be, or is not, enrolled; the text is the reason that it is told."""


class TooMany(ValueError):
    """A node has more examples of its own than it said when it enrolled; the text is the reason that it is told."""


class Revoked(NotEnrolled):
    """It was, and is shut out for good."""


class Members:
    """The members of one authority; used from any thread."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = uptime_seconds,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        self._file = MembersFile(folder)
        self._folder = folder
        self._fingerprint = fingerprint
        self._clock, self._uptime, self._boot = clock, uptime, boot()

    def issue(self, hours: float, reusable: bool) -> Token:
        """A new token that lasts ``hours``, for one node or for any number."""
        secret = secrets.token_hex(16)
        with self._file.change() as content:
            content.tokens = {known: token for known, token in content.tokens.items() if not self._has_ended(token)}
            while len(content.tokens) >= MAX_TOKENS:
                del content.tokens[next(known for known in content.tokens if known != _LOCAL)]
            content.tokens[secrets.token_hex(4)] = IssuedToken(
                secret_sha256=_hash(secret),
                ends=self._clock() + 3600 * hours,
                reusable=reusable,
                boot=self._boot,
                ends_uptime=self._uptime() + 3600 * hours,
            )
        return Token(self._fingerprint, secret)

    def keep_local_token(self) -> None:
        """See that nodes of this machine can enrol themselves: the token lies beside the members file."""
        path = self._folder / LOCAL_TOKEN
        secret = secrets.token_hex(16)
        with self._file.change() as content:
            kept = content.tokens.get(_LOCAL)
            if kept and kept.secret_sha256 == _hash(_secret_in(path)):
                return
            content.tokens[_LOCAL] = IssuedToken(secret_sha256=_hash(secret), ends=None, reusable=True)
            write_private(path, f"{Token(self._fingerprint, secret)}\n".encode())

    def check_secret(self, secret: str) -> str:
        """The id of the token with that secret.

        Raises:
            NotEnrolled: there is none (any more).
        """
        hashed = _hash(secret)
        for known, token in self._file.content().tokens.items():
            if hmac.compare_digest(token.secret_sha256, hashed):
                if self._has_ended(token):
                    raise NotEnrolled("the join token has expired: python -m server token issues another")
                return known
        raise NotEnrolled("the server does not know this join token: python -m server token issues another")

    def enrol(self, secret: str, name: str, key: str, own_examples: int = 0) -> None:
        """Make the holder of ``key`` the node called ``name``; the same one may ask again.

        ``own_examples`` is the most that it may have of its own from then on, whatever it says when it asks again.

        Raises:
            NotEnrolled: the token is spent or unknown, the name is another node's, or the key was revoked.
        """
        if not NAME.fullmatch(name):
            raise NotEnrolled("a node's name must be 1 to 63 of A-Z a-z 0-9 . _ -")
        token_id = self.check_secret(secret)
        with self._file.change() as content:
            token = content.tokens.get(token_id)
            if token is None or (not token.reusable and token.used_by not in ("", key)):
                raise NotEnrolled("the join token was used by another node: python -m server token issues another")
            if key in content.revoked_keys:
                raise NotEnrolled(_revoked(name))
            known = content.nodes.get(name)
            if known and known.key != key and not known.revoked:
                raise NotEnrolled(
                    f"the name {name} belongs to another node: choose one with --name, or free it on the server's"
                    f" machine with python -m server revoke {name}"
                )
            if known is None and len(content.nodes) >= MAX_NODES:
                raise NotEnrolled(f"this server has {MAX_NODES} nodes already")
            if not token.reusable:
                token.used_by = key
            most = known.own_examples if known and known.key == key else own_examples
            content.nodes[name] = Member(key=key, token=token_id, enrolled=self._clock(), own_examples=most)

    def check(self, name: str, key: str) -> None:
        """Whether a certificate for this name and key still counts.

        Raises:
            NotEnrolled: it was revoked, or this server does not know the node.
        """
        content = self._file.content()
        known = content.nodes.get(name)
        if key in content.revoked_keys or (known and known.revoked and known.key == key):
            raise Revoked(_revoked(name))
        if known is None or known.key != key:
            raise NotEnrolled(f"node {name} is not enrolled with this server (any more): enrol it with a join token")

    def declare(self, name: str, num_examples: int) -> None:
        """Hold a node to the count of its own examples that it enrolled with, or to this one if it is to say it anew.

        Raises:
            TooMany: it declares more now.
        """
        if (known := self._file.content().nodes.get(name)) and known.own_examples is None:
            with self._file.change() as content:
                known = content.nodes[name]
                known.own_examples = num_examples if known.own_examples is None else known.own_examples
        if known and num_examples > (known.own_examples or 0):
            raise TooMany(
                f"{num_examples} examples of its own, and node {name} said {known.own_examples or 'none'} when it"
                f" enrolled: python -m server recount {name} on the server's machine lets it say anew"
            )

    def recount(self, name: str) -> None:
        """Let a node declare anew how many examples of its own it has.

        Raises:
            UsageError: no such node is enrolled.
        """
        with self._file.change() as content:
            _enrolled(content, name, "counted anew").own_examples = None

    def revoke(self, name: str) -> bool:
        """Shut a node out for good, with the token it came with; whether that token let others in as well.

        Raises:
            UsageError: no such node is enrolled.
        """
        with self._file.change() as content:
            member = _enrolled(content, name, "revoked")
            member.revoked = True
            content.revoked_keys.append(member.key)
            was_shared = member.token != _LOCAL and member.token in content.tokens
            if was_shared:
                del content.tokens[member.token]
            return was_shared

    def nodes(self) -> dict[str, Member]:
        """All nodes, by name."""
        return dict(sorted(self._file.content().nodes.items()))

    def _has_ended(self, token: IssuedToken) -> bool:
        if token.ends is None:
            return False
        if token.boot and token.boot == self._boot:
            return token.ends_uptime <= self._uptime()
        return token.ends <= self._clock()


def _enrolled(content: Content, name: str, purpose: str) -> Member:
    member = content.nodes.get(name)
    if member is None or member.revoked:
        enrolled = [node for node, known in content.nodes.items() if not known.revoked]
        names = ", ".join(sorted(enrolled)[:20]) or "none"
        raise UsageError(f"no node called {name[:63]!r} is enrolled, so none can be {purpose}; enrolled: {names}")
    return member


def _secret_in(path: Path) -> str:
    """That of a token in a file; '' if there is none (any more: damaged counts as none)."""
    try:
        return parse_token(path.read_text(encoding="utf-8"), "").secret
    except (FileNotFoundError, UnicodeDecodeError, UsageError):
        return ""


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _revoked(name: str) -> str:
    return f"node {name} was revoked: its operator knows why"
