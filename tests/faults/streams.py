"""Points around what goes over the link: every message that the server or a client sends or receives."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from common import fleet_pb2 as pb
from tests.faults.injector import Injector


def wrap_served_streams(injector: Injector) -> None:
    """On the server: around reads and writes of every method that it serves."""
    make = grpc.stream_stream_rpc_method_handler

    def wrapped(serve: Callable[[Any, Any], Any]) -> Any:
        async def watched(request: Any, stream: Any) -> None:
            await serve(request, _Served(stream, serve.__name__.strip("_"), injector))

        return make(watched)

    grpc.stream_stream_rpc_method_handler = wrapped  # type: ignore[assignment]


def wrap_channels(injector: Injector) -> None:
    """On a client: around every message of its calls."""
    for package, name in ((grpc, "secure_channel"), (grpc.aio, "insecure_channel"), (grpc.aio, "secure_channel")):
        make = getattr(package, name)

        def opened(*arguments: Any, make: Any = make, **named: Any) -> Any:
            injector.passes("client open channel before")
            return _Channel(make(*arguments, **named), injector)

        setattr(package, name, opened)


class _Served:
    def __init__(self, stream: Any, method: str, injector: Injector) -> None:
        self._stream, self._method, self._injector = stream, method, injector

    async def read(self) -> Any:
        self._injector.passes(f"server {self._method} receive before")
        raw = await self._stream.read()
        self._injector.passes(f"server {self._method} receive {_kind(raw, pb.FromNode)} after")
        return raw

    async def write(self, raw: bytes) -> None:
        name = f"server {self._method} send {_kind(raw, pb.ToNode)}"
        self._injector.passes(f"{name} before")
        writing = asyncio.ensure_future(self._stream.write(raw))
        if self._injector.is_due(f"{name} during"):
            await asyncio.sleep(0)  # gRPC has the message now
            self._injector.strike()
        await writing
        self._injector.passes(f"{name} after")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Channel:
    """One of both kinds: for enrolment, or on a loop for the link."""

    def __init__(self, channel: Any, injector: Injector) -> None:
        self._channel, self._injector = channel, injector

    def __enter__(self) -> "_Channel":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    async def __aenter__(self) -> "_Channel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    def stream_stream(self, method: str) -> Callable[[], "_Call"]:
        join = self._channel.stream_stream(method)
        return lambda: _Call(join(), self._injector)

    def unary_unary(self, method: str, **named: Any) -> Callable[..., Any]:
        call = self._channel.unary_unary(method, **named)

        def watched(request: Any, timeout: float) -> Any:
            self._injector.passes("client enrol before")
            answer = call.future(request, timeout=timeout)
            self._injector.passes("client enrol during")
            result = answer.result()
            self._injector.passes("client enrol after")
            return result

        return watched


class _Call:
    def __init__(self, call: Any, injector: Injector) -> None:
        self._call, self._injector = call, injector
        self._sorted = ""  # the kind of the message that came last

    async def write(self, raw: bytes) -> None:
        name = f"client send {_kind(raw, pb.FromNode)}"
        self._injector.passes(f"{name} before")
        await self._call.write(raw)
        self._injector.passes(f"{name} after")

    async def read(self) -> Any:
        if self._sorted:
            self._injector.passes(f"client receive {self._sorted} sorted")
        raw = await self._call.read()
        self._sorted = _kind(raw, pb.ToNode) if isinstance(raw, bytes) else ""
        if self._sorted:
            self._injector.passes(f"client receive {self._sorted} after")
        return raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def _kind(raw: Any, message: Any) -> str:
    """Of a message in bytes; what is no message of the link has none."""
    if not isinstance(raw, bytes):
        return "end"
    try:
        return str(message.FromString(raw).WhichOneof("kind"))
    except Exception:  # another method's message
        return "message"
