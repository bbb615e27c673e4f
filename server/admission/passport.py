"""Passport control: on a link with mutual TLS, a node is who its certificate says and nobody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from common import fleet_pb2 as pb
from common.errors import UsageError
from server.admission.authority import NODE_DAYS, Authority, BadRequest, open_authority, peer_of
from server.admission.enrolment import Enrolment
from server.admission.members import Members, NotEnrolled, Revoked, TooMany
from server.admission.refused import Refused

_LOG = logging.getLogger(__name__)


class Control:
    """Looks at certificates when nodes join and while they are here.

    Attributes:
        notice: told, once, why who is enrolled cannot be read or kept; must not block.
    """

    def __init__(self, authority: Authority, members: Members) -> None:
        self.authority = authority
        self.members = members
        self.enrolment = Enrolment(authority, members, self._complain)
        self.notice: Callable[[str], None] = lambda _: None
        self._complained = ""

    @classmethod
    def open(cls) -> Control:
        """That of this machine, made on first use.

        Raises:
            UsageError: the state folder cannot be used.
        """
        authority = open_authority()
        members = Members(authority.folder, authority.fingerprint)
        try:
            members.keep_local_token()
        except OSError as error:
            raise UsageError(
                f"cannot keep who is enrolled in {authority.folder}: {error.strerror or error};"
                " name another place with FEDGE_STATE_DIR"
            ) from None
        return cls(authority, members)

    def identify(self, hello: pb.Hello, connection: Mapping[str, Iterable[bytes]]) -> bool:
        """Hold a hello to the certificate of its connection, and put the certificate's key in place of its own.

        Returns:
            whether the certificate is in the second half of its days.

        Raises:
            Refused: it names another node, or the node is not, or no longer, enrolled.
        """
        try:
            peer = peer_of(next(iter(connection["x509_pem_cert"])))
        except (BadRequest, ValueError, KeyError, StopIteration):
            raise Refused("the certificate is no node's") from None
        left = peer.ends - datetime.now(UTC)
        if left <= timedelta(0):  # a resumed TLS session is not checked again by gRPC
            raise Refused("the certificate has ended: enrol this node with a join token", retry=True, enrol=True)
        if hello.name != peer.name:
            raise Refused(f"the certificate is that of node {peer.name}, the hello names {hello.name[:63]!r}")
        try:
            self.members.check(peer.name, peer.key)
        except Revoked as reason:
            raise Refused(str(reason)) from None
        except NotEnrolled as reason:
            raise Refused(str(reason), retry=True, enrol=True) from None
        except (UsageError, OSError) as error:
            self._complain(error)
            raise Refused("the server cannot read who is enrolled: its terminal says why", retry=True) from None
        hello.key = peer.key
        return left < timedelta(days=NODE_DAYS / 2)

    def declare(self, name: str, own_examples: int) -> None:
        """Hold a node to the count of its own examples that it enrolled with.

        Raises:
            Refused: it says more now, or the count cannot be kept.
        """
        try:
            self.members.declare(name, own_examples)
        except TooMany as reason:
            raise Refused(str(reason), retry=True) from None
        except (UsageError, OSError) as error:
            self._complain(error)
            raise Refused(
                "the server cannot keep how many examples a node has: its terminal says why", retry=True
            ) from None

    def revocation(self, name: str, key: str) -> str:
        """Why a node that is here may not stay, or ''."""
        try:
            self.members.check(name, key)
        except NotEnrolled as reason:
            return str(reason)
        except (UsageError, OSError):  # the file is damaged: nobody new gets in, who is here stays
            return ""
        return ""

    def renewed(self, request: bytes, name: str, key: str) -> bytes | None:
        """A new certificate for a node that is here, None for a request that is not its own."""
        try:
            return self.enrolment.renewed(request, name, key)
        except BadRequest:
            return None

    def _complain(self, error: Exception) -> None:
        """On the terminal as well: where the disk is full the log takes nothing either."""
        _LOG.warning("%s", error)
        if str(error) != self._complained:
            self._complained = str(error)
            self.notice(f"nodes that enrol or join must wait: {error}")
