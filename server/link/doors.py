"""The ports of a server: Join behind mutual TLS, and beside it enrolment and health for whoever has no certificate.

gRPC knows no optional client certificates, hence two ports. Without TLS there is one, with Join and health.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from common.address import join_address
from common.errors import UsageError
from common.settings import LinkSettings
from common.wire import CHANNEL_OPTIONS, ENROL, JOIN, MAX_HELLO_BYTES
from server.admission.authority import Authority
from server.link.roster import MAX_NODES

HEALTH = "/grpc.health.v1.Health/Check"
_ATTEMPTS = 50  # to find two free ports in a row
HANDSHAKE_SECONDS = 10.0  # for TLS to be agreed on
# What is read at a time: gRPC would take more and more, up to a whole update, and keep it for a node that is idle.
READ_BYTES = 8 * 1024
# No connection of a stranger is older than this and its grace: who sends a byte now and then holds nothing for long.
STRANGER_SECONDS, STRANGER_GRACE_SECONDS = 15.0, 5.0
_MAX_STRANGERS = 256  # calls at once

Options = tuple[tuple[str, int], ...]
Serve = Callable[[Any, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[None]]


@dataclass(frozen=True)
class Doors:
    """What listens, and where; ``enrol_port`` is 0 without TLS."""

    servers: tuple[grpc.aio.Server, ...]
    port: int
    enrol_port: int

    async def start(self) -> None:
        """Let them in."""
        for server in self.servers:
            await server.start()

    async def stop(self, grace: float) -> None:
        """Close; calls under way have ``grace`` seconds."""
        await asyncio.gather(*(server.stop(grace) for server in self.servers))


def bind(link: LinkSettings, authority: Authority | None, more: Options, join: Serve, enrol: Serve | None) -> Doors:
    """Take the ports, without answering yet; plaintext if there is no authority. ``more`` are options for the link's.

    Raises:
        UsageError: a port is taken or the address is not this machine's.
    """
    options = (*_common_options(), *more)
    if authority is None or enrol is None:
        server = _server(options, 2 * MAX_NODES, {JOIN: join, HEALTH: _healthy})
        return Doors((server,), _listen(server, link.host, link.port, None, "--port or --host"), 0)
    beside = link.enrol_port or (link.port + 1 if link.port else 0)
    if beside > 65_535:
        raise UsageError("no port is left for enrolment after link.port 65535: choose one with link.enrol_port")
    key, chain = authority.server_credentials()
    mutual = grpc.ssl_server_credentials([(key, chain)], authority.certificate_pem, require_client_auth=True)
    one_sided = grpc.ssl_server_credentials([(key, chain)])
    for attempt in range(_ATTEMPTS):
        inner = _server(options, 2 * MAX_NODES, {JOIN: join})
        outer = _server((*_common_options(), *_stranger_options()), _MAX_STRANGERS, {ENROL: enrol, HEALTH: _healthy})
        port = _listen(inner, link.host, link.port, mutual, "--port or --host")
        try:
            enrol_port = _listen(outer, link.host, beside or port + 1, one_sided, "link.enrol_port or --port")
            return Doors((inner, outer), port, enrol_port)
        except UsageError:
            if beside or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _common_options() -> Options:
    return (
        *CHANNEL_OPTIONS,
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_SECONDS)),
        ("grpc.experimental.tcp_max_read_buffer_size", READ_BYTES),
    )


def _stranger_options() -> Options:
    return (
        ("grpc.max_receive_message_length", MAX_HELLO_BYTES),
        ("grpc.max_metadata_size", 8 * 1024),
        ("grpc.max_concurrent_streams", 8),
        ("grpc.max_connection_age_ms", int(1000 * STRANGER_SECONDS)),
        ("grpc.max_connection_age_grace_ms", int(1000 * STRANGER_GRACE_SECONDS)),
    )


def _server(options: Any, most_calls: int, methods: dict[str, Serve]) -> grpc.aio.Server:
    """Every method is read as a stream, also of one message: only so is what came first bounded by us."""
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=most_calls)
    for path, serve in methods.items():
        service, method = path.strip("/").split("/")
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(serve)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    return server


def _listen(
    server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None, remedy: str
) -> int:
    address = join_address(host, port)
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise UsageError(
            f"cannot listen on {address}: the port is taken or the address is not this machine's;"
            f" choose another with {remedy}"
        ) from None


async def _healthy(_: Any, stream: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    """The standard health check: whoever is answered is served."""
    raw: Any = await stream.read()
    known = {b"", health_pb2.HealthCheckRequest(service=JOIN.split("/")[1]).SerializeToString()}
    if raw not in known:
        await stream.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
    await stream.write(serving.SerializeToString())
