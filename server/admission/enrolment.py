"""The one thing that a stranger may ask for: a certificate, in exchange for a join token's secret."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from common import __version__
from common import fleet_pb2 as pb
from common.errors import FedgeError
from common.wire import MAX_HELLO_BYTES, PROTOCOL_VERSION
from server.admission.authority import Authority, BadRequest, key_id, parse_request
from server.admission.members import Members, NotEnrolled

_PATIENCE_SECONDS = 10.0  # for the one message of a stranger
_LOG = logging.getLogger(__name__)


class Enrolment:
    """Answers enrolments of one authority and renews what it granted."""

    def __init__(self, authority: Authority, members: Members, complain: Callable[[Exception], None]) -> None:
        """``complain`` is told why one could not be stored."""
        self._authority, self._complain = authority, complain
        self.members = members

    async def serve(self, _: Any, stream: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Handle the call ``Enrol``; whoever sends slowly is cut off (see ``server.link.doors``)."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            raw: Any = await stream.read()
        try:
            reply = await asyncio.to_thread(self.answer, raw)
        except (OSError, FedgeError) as error:
            self._complain(error)
            # No refusal: that would end a new node, and this passes.
            await stream.abort(
                grpc.StatusCode.UNAVAILABLE, "the server cannot store an enrolment now: its terminal says why"
            )
        outcome = f"refused: {reply.refusal}" if reply.refusal else "granted"
        _LOG.info("enrolment asked for by %s: %s", unquote(stream.peer()).partition(":")[2], outcome)
        await stream.write(reply.SerializeToString())

    def answer(self, raw: object) -> pb.EnrolReply:
        """The reply to an enrolment, which may be any bytes.

        Raises:
            OSError, FedgeError: it cannot be stored now.
        """
        if not isinstance(raw, bytes) or len(raw) > MAX_HELLO_BYTES:
            return pb.EnrolReply(refusal="that is no enrolment")
        try:
            return self._enrol(pb.EnrolRequest.FromString(raw))
        except DecodeError:
            return pb.EnrolReply(refusal="that is no enrolment")
        except (NotEnrolled, BadRequest) as refusal:
            return pb.EnrolReply(refusal=str(refusal))

    def renewed(self, raw: bytes, name: str, key: str) -> bytes:
        """A new certificate for a node that holds one; it keeps its name and its key.

        Raises:
            BadRequest: the request is not of that key.
        """
        _, public = parse_request(raw)
        if key_id(public) != key:
            raise BadRequest("a renewal must be asked for with the node's own key")
        return self._authority.sign_node(name, public)

    def _enrol(self, asked: pb.EnrolRequest) -> pb.EnrolReply:
        if asked.protocol_version != PROTOCOL_VERSION:
            raise NotEnrolled(
                f"this server speaks protocol version {PROTOCOL_VERSION} (Fedge {__version__}), the node version"
                f" {asked.protocol_version}: install the same Fedge on both"
            )
        self.members.check_secret(asked.secret)  # before anything else of a stranger's is looked at
        name, public = parse_request(asked.request)
        self.members.enrol(asked.secret, name, key_id(public), asked.own_examples)
        return pb.EnrolReply(certificate=self._authority.sign_node(name, public))
