"""A TCP proxy on loopback that does to connections what bad networks do: delay, throttle, cut, or swallow them."""

import asyncio
import math
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

Result = TypeVar("Result")
CHUNK_BYTES = 4096  # read and passed on at once; a delay or a throttle holds each of them up
MAX_CONNECTIONS = 64  # of one line at a time; more are turned away
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Weather:
    """What happens to the bytes of one direction of a line, from the moment it is set."""

    delay_seconds: float = 0.0  # that each chunk waits, give or take half
    bytes_per_second: float = math.inf
    num_bytes: float = math.inf  # so many pass, then the line is struck once and its weather clears
    then: Literal["cut", "swallow"] = "cut"


CLEAR = Weather()


class _Way:
    """One direction of a line: its weather, and how much passes before it strikes."""

    def __init__(self) -> None:
        self.set(CLEAR)

    def set(self, weather: Weather) -> None:
        self.weather, self.left = weather, weather.num_bytes

    def take(self, num_bytes: int) -> int:
        """How many of the next ``num_bytes`` pass."""
        passing = int(min(num_bytes, self.left))
        self.left -= passing
        return passing


class _Line:
    """A listening port of its own, and the connections through it."""

    def __init__(self) -> None:
        self.up, self.down = _Way(), _Way()
        self.is_shut = False
        self.pairs: set[_Pair] = set()


class _Pair:
    """A connection of a node and the one to the server behind it."""

    def __init__(self, chance: random.Random, struck: Counter[str]) -> None:
        self._chance, self._struck = chance, struck
        self._writers: list[asyncio.StreamWriter] = []
        self._swallows = False  # bytes are missing: nothing may pass any more

    async def carry(
        self,
        line: _Line,
        node: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Pass bytes until one end closes; on a line that swallows, the other end does not hear of it."""
        self._writers = [node[1], server[1]]
        waiting = {
            asyncio.create_task(self._pump(line.up, node[0], server[1])),
            asyncio.create_task(self._pump(line.down, server[0], node[1])),
        }
        try:
            while waiting:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if not self._swallows:
                    break
            for writer in self._writers:
                writer.close()  # once what waits in it is out
        finally:
            for task in waiting:
                task.cancel()

    def cut(self) -> None:
        """Close both connections without a word."""
        for writer in self._writers:
            writer.transport.abort()

    async def _pump(self, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                weather = way.weather
                held_seconds = weather.delay_seconds * self._chance.uniform(0.5, 1.5)
                await asyncio.sleep(held_seconds + len(data) / weather.bytes_per_second)
                if self._swallows:
                    continue
                passing = way.take(len(data))
                writer.write(data[:passing])
                await writer.drain()
                if passing < len(data):
                    self._strike(way)

    def _strike(self, way: _Way) -> None:
        then = way.weather.then
        way.set(CLEAR)
        self._struck[then] += 1
        if then == "swallow":
            self._swallows = True
        else:
            self.cut()


class ChaosProxy:
    """A line for each name, all to one server of this machine. A context manager: leaving it ends every connection.

    Attributes:
        target_port: the server's; may be changed, for the connections to come.
        ports: of the lines, by name.
        struck: how many connections were cut and swallowed so far.
    """

    def __init__(self, target_port: int, names: Iterable[str], seed: int = 0) -> None:
        """``seed`` is that of how long single chunks are delayed."""
        self.target_port = target_port
        self.ports: dict[str, int] = {}
        self.struck: Counter[str] = Counter()
        self._lines = {name: _Line() for name in names}
        self._chance = random.Random(seed)
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="chaos", daemon=True)

    def __enter__(self) -> "ChaosProxy":
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def set(self, name: str, up: Weather = CLEAR, down: Weather = CLEAR, is_shut: bool = False) -> None:
        """The weather of a line from now on; one that ``is_shut`` turns new connections away."""

        def change() -> None:
            line = self._lines[name]
            line.up.set(up)
            line.down.set(down)
            line.is_shut = is_shut

        self._call(change)

    def cut(self, name: str) -> None:
        """End all connections of a line now."""

        def end() -> None:
            for pair in self._lines[name].pairs:
                pair.cut()

        self._call(end)

    def num_connections(self, name: str) -> int:
        """How many a line has now."""
        return self._call(lambda: len(self._lines[name].pairs))

    def _call(self, function: Callable[[], Result]) -> Result:
        async def run() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        servers = []
        for name, line in self._lines.items():
            server = await asyncio.start_server(self._accepting(line), LOOPBACK, 0)
            servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]
        self._ready.set_result(None)
        await self._over.wait()
        for server in servers:
            server.close()
        # asyncio.run cancels what is still carried, and each of these closes its connections.

    def _accepting(self, line: _Line) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pair = _Pair(self._chance, self.struck)
            try:
                if line.is_shut or len(line.pairs) >= MAX_CONNECTIONS:
                    return
                server = await asyncio.open_connection(LOOPBACK, self.target_port)
                line.pairs.add(pair)
                await pair.carry(line, (reader, writer), server)
            except (ConnectionError, asyncio.CancelledError):
                pass  # no server there, or the proxy is leaving
                pair.cut()
            finally:
                line.pairs.discard(pair)
                writer.close()

        return accept
