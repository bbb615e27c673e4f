"""How a node gets in at a server: with its certificate, or first with a join token that gets it one.

Nothing of this node's is sent before the server's CA certificate has the fingerprint that the node
knows, and then only to a server that proves, by TLS, that this CA vouches for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from client.discovery import Place
from client.knocking import Closed, Plaintext, knock
from client.membership import (
    Membership,
    is_enrolled_somewhere,
    load_membership,
    make_membership,
    salvage_membership,
    save_membership,
)
from common import fleet_pb2 as pb
from common.address import join_address
from common.errors import FedgeError, UsageError
from common.state import state_dir
from common.texts import one_line
from common.token import SERVER_NAME, Token, parse_token
from common.wire import ENROL, PROTOCOL_VERSION

ENROL_SECONDS = 8.0


@dataclass
class Entrance:
    """A node's way into servers with TLS.

    Attributes:
        name: the node's.
        token: the join token that a person gave, None = none.
        enrol_port: where servers enrol nodes, 0 = as announced, else the port after the link's.
        tell: a line for a person.
        own_examples: how many the node has of its own; 0 = it trains on a shard.
    """

    name: str
    token: Token | None
    enrol_port: int
    tell: Callable[[str], None]
    own_examples: int = 0
    _current: Membership | None = None
    _doubtful: set[str] = field(default_factory=set)  # CAs whose servers turned our certificate down

    def enter(self, place: Place) -> Membership:
        """What to show at the server there; enrols the node if need be.

        Raises:
            Closed: not now.
            UsageError: never, unless a person does something; only to a node that no server has enrolled.
        """
        try:
            shown = knock(place.host, place.port)
        except Plaintext:
            raise Closed(
                "what answers there does not speak TLS: if the server runs with --insecure, this node must too"
            ) from None
        known = [member for fingerprint in shown if (member := load_membership(self.name, fingerprint))]
        member = known[0] if known else None
        if member is None or not member.certificate:
            member = self._enrolled(place, shown, member)
        elif member.fingerprint in self._doubtful:
            # Without a useful token the old one is shown again: a server that stops looks just the same.
            with suppress(FedgeError):
                member = self._enrolled(place, shown, member)
        self._current = member
        return member

    def is_known(self, authority: str) -> bool:
        """Whether a server whose CA certificate's fingerprint begins so is one that this node can join."""
        tokens = [token.fingerprint for token in (self.token, _local_token()) if token]
        return len(authority) == 16 and (
            any(known.startswith(authority) for known in tokens) or is_enrolled_somewhere(self.name, authority)
        )

    def turned_down(self) -> None:
        """The server ended the link before a word: the next time, a token is tried if there is one."""
        if self._current:
            self._doubtful.add(self._current.fingerprint)

    def welcomed(self) -> None:
        """The certificate counts."""
        if self._current:
            self._doubtful.discard(self._current.fingerprint)

    def request(self) -> bytes | None:
        """What to renew the certificate with."""
        return self._current.request() if self._current else None

    def renewed(self, certificate: bytes) -> None:
        """Keep a new certificate from the server of the current link; a useless one is passed over.

        Where the disk takes nothing it counts until this process ends, and the server gives another one later.
        """
        if self._current is None:
            return
        try:
            self._current = self._current.granted(certificate)
        except ValueError:
            return
        try:
            save_membership(self._current)
        except UsageError as error:
            self.tell(f"the server renewed this node's certificate, for now: {error}")
            return
        self.tell("the server renewed this node's certificate")

    def _enrolled(self, place: Place, shown: dict[str, bytes], member: Membership | None) -> Membership:
        token = next((token for token in (self.token, _local_token()) if token and token.fingerprint in shown), None)
        if token is None:
            raise self._stranger(place)
        authority = shown[token.fingerprint]
        member = member or salvage_membership(self.name, authority) or make_membership(self.name, authority)
        save_membership(member)  # the key first: a reply that is lost must not leave the name with a key nobody has
        certificate = self._enrol(place, member, token)
        member = member.granted(certificate)
        save_membership(member)
        self._doubtful.discard(token.fingerprint)
        self.tell(f"enrolled as {self.name} with the server at {place.address}")
        return member

    def _enrol(self, place: Place, member: Membership, token: Token) -> bytes:
        port = self.enrol_port or place.enrol_port or place.port + 1
        address = join_address(place.host, port)
        options = (("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.enable_retries", 0))
        credentials = grpc.ssl_channel_credentials(root_certificates=member.authority)
        asked = pb.EnrolRequest(
            protocol_version=PROTOCOL_VERSION,
            secret=token.secret,
            request=member.request(),
            own_examples=self.own_examples,
        )
        with grpc.secure_channel(address, credentials, options=options) as channel:
            call = channel.unary_unary(
                ENROL, request_serializer=pb.EnrolRequest.SerializeToString, response_deserializer=_reply
            )
            try:
                reply = call(asked, timeout=ENROL_SECONDS)
            except grpc.RpcError as error:
                reason = error.details() if isinstance(error, grpc.Call) else str(error)
                raise Closed(
                    f"no enrolment at {address} ({' '.join((reason or '').split())[:120]});"
                    " another port is named with link.enrol_port"
                ) from None
        if reply.refusal or not reply.certificate:
            raise self._final(f"the server does not enrol this node: {one_line(reply.refusal[:500])}")
        return bytes(reply.certificate)

    def _stranger(self, place: Place) -> Exception:
        if is_enrolled_somewhere(self.name):
            return Closed(
                f"what answers there is no server that node {self.name} is enrolled with: it shows another CA"
                " certificate, and is told nothing; to join it all the same, give this node its join token with --token"
                " or FEDGE_TOKEN"
            )
        if self.token is None:
            return UsageError(
                f"node {self.name} is not enrolled with the server at {place.address}: give it a join token once with"
                " --token or FEDGE_TOKEN; on the server's machine, python -m server token prints one"
            )
        problem = (
            f"the join token is for another server than the one at {place.address}:"
            " name yours with --server, or get a token from this one"
        )
        # Anyone may announce a server on the local network: that must not end a node that waits for its own.
        return Closed(problem) if place.source == "network" else UsageError(problem)

    def _final(self, problem: str) -> Exception:
        """A node that some server has enrolled goes on looking for it; a new one needs a person."""
        return Closed(problem) if is_enrolled_somewhere(self.name) else UsageError(problem)


def check_plaintext(place: Place) -> Membership | None:
    """What to show at a server without TLS: nothing.

    Raises:
        Closed: the server there speaks TLS.
    """
    try:
        knock(place.host, place.port)
    except Plaintext:
        return None
    raise Closed("the server there speaks TLS: leave out --insecure (link.insecure)")


def given_token(flag: str | None, file: str | None, environment: str | None) -> Token | None:
    """The join token that a person gave: flag > file > environment.

    Raises:
        UsageError: it is none, or the file cannot be read.
    """
    if flag is not None:
        return parse_token(flag, "--token")
    if file is not None:
        try:
            return parse_token(Path(file).expanduser().read_text(encoding="utf-8")[:4096], f"the text in {file}")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the join token in {file}: {error}") from None
    return parse_token(environment, "FEDGE_TOKEN") if environment else None


def _local_token() -> Token | None:
    """That of the server whose state folder this machine's user can read."""
    try:
        return parse_token((state_dir() / "authority" / "local-token").read_text(encoding="utf-8"), "the local token")
    except (OSError, UnicodeDecodeError, UsageError):
        return None


def _reply(raw: bytes) -> pb.EnrolReply:
    return pb.EnrolReply.FromString(raw)
