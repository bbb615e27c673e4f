"""The limit of a round: bare gRPC streams over TLS that carry the same bytes there and back, and do nothing else.

python -m benchmarks.echo serve --nodes 2 --rounds 30 --authority ca.pem
python -m benchmarks.echo answer --count 1 --port 50051 --authority ca.pem
"""

import argparse
import asyncio
import json
import queue
import threading
import time
from pathlib import Path
from typing import Any

import grpc

from common.token import SERVER_NAME
from common.wire import CHANNEL_OPTIONS
from server.admission.authority import open_authority

METHOD = "/benchmark.Echo/Echo"
NUM_BYTES = 4 * 61_706 + 1_000  # the weights of LeNet5, and what a task says beside them
OPTIONS = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", 2 * NUM_BYTES))


class Echo:
    """The side that measures: it sends the same bytes to every stream and waits until all are back."""

    def __init__(self, num_nodes: int, num_rounds: int) -> None:
        self._num_nodes, self._num_rounds = num_nodes, num_rounds
        self._streams: list[Any] = []

    async def serve(self) -> None:
        """One JSON object a round."""
        server = grpc.aio.server(options=(*OPTIONS, ("grpc.so_reuseport", 0)))
        service, method = METHOD.strip("/").split("/")
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self._hold)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        port = server.add_secure_port(
            "127.0.0.1:0", grpc.ssl_server_credentials([open_authority().server_credentials()])
        )
        self._over, self._all_here = asyncio.Event(), asyncio.Event()
        await server.start()
        print(port, flush=True)
        await self._all_here.wait()
        message = bytes(NUM_BYTES)
        for _ in range(self._num_rounds):
            start, cpu = time.monotonic(), time.process_time()
            await asyncio.gather(*(self._there_and_back(stream, message) for stream in self._streams))
            seconds, cpu = time.monotonic() - start, time.process_time() - cpu
            print(json.dumps({"seconds": seconds, "cpu": cpu}), flush=True)
        self._over.set()
        await server.stop(grace=1)

    async def _hold(self, _: Any, stream: Any) -> None:
        await stream.read()  # the hello
        self._streams.append(stream)
        if len(self._streams) == self._num_nodes:
            self._all_here.set()
        await self._over.wait()

    async def _there_and_back(self, stream: Any, message: bytes) -> None:
        await stream.write(message)
        assert len(await stream.read()) == len(message)


def answer(port: int, authority: bytes) -> None:
    """Send back what comes, until the stream ends."""
    named = (*OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME))
    with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(authority), options=named) as channel:
        outbox: queue.Queue[bytes | None] = queue.Queue()
        outbox.put(b"hello")
        call: Any = channel.stream_stream(METHOD)(iter(outbox.get, None))  # type: ignore[arg-type]  # bytes as they are
        for message in call:
            outbox.put(message)
        outbox.put(None)


def main() -> None:
    """Serve, or answer with so many streams, each on a channel of its own as nodes are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=("serve", "answer"))
    for flag in ("--nodes", "--rounds", "--count", "--port"):
        parser.add_argument(flag, type=int, default=0)
    parser.add_argument("--authority", type=Path, required=True)
    asked = parser.parse_args()
    if asked.side == "serve":
        asked.authority.write_bytes(open_authority().certificate_pem)
        asyncio.run(Echo(asked.nodes, asked.rounds).serve())
        return
    authority = asked.authority.read_bytes()
    threads = [threading.Thread(target=answer, args=(asked.port, authority)) for _ in range(asked.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
