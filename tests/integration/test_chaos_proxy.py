"""Rule: the chaos proxy passes every byte in clear weather; otherwise just so many, then it cuts or swallows, once."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.faults.chaos_proxy import ChaosProxy, Weather
from tests.link_twins import PATIENCE_SECONDS, until

SENT = bytes(range(256)) * 100  # 25,600 bytes: more than a chunk


class Echo:
    """A server that sends back what it gets, a byte at least for each read, until the other end closes."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.ends: list[str] = []
        self.num_received = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.num_received += len(data)
                    connection.sendall(data)
                self.ends.append("closed")
            except ConnectionError:
                self.ends.append("broken")


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.listening.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[ChaosProxy]:
    with ChaosProxy(echo.port, ["a", "b"]) as proxy:
        yield proxy
    assert "chaos" not in {thread.name for thread in threading.enumerate()}


def connected(proxy: ChaosProxy, name: str = "a") -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.ports[name]), PATIENCE_SECONDS)


def received(connection: socket.socket, num_bytes: int) -> bytes:
    """What comes until there are so many bytes or the connection is over."""
    found = b""
    try:
        while len(found) < num_bytes and (data := connection.recv(65536)):
            found += data
    except ConnectionError:
        pass
    return found


@pytest.mark.parametrize("weather", [Weather(), Weather(delay_seconds=0.001), Weather(bytes_per_second=1e6)])
def test_every_byte_passes_in_order(proxy: ChaosProxy, weather: Weather) -> None:
    proxy.set("a", up=weather, down=weather)
    with connected(proxy) as node:
        node.sendall(SENT)
        assert received(node, len(SENT)) == SENT
        assert proxy.num_connections("a") == 1
    until(lambda: proxy.num_connections("a") == 0)
    assert not proxy.struck


@pytest.mark.parametrize("num_bytes", [0, 1, 4096, 10_000])
def test_a_line_is_cut_after_so_many_bytes_and_is_clear_again(proxy: ChaosProxy, echo: Echo, num_bytes: int) -> None:
    proxy.set("a", down=Weather(num_bytes=num_bytes))
    with connected(proxy) as node:
        node.sendall(SENT)
        assert received(node, len(SENT)) == SENT[:num_bytes]
    until(lambda: len(echo.ends) == 1)  # the server hears of it as well
    with connected(proxy) as node:
        node.sendall(SENT)
        assert received(node, len(SENT)) == SENT
    assert proxy.struck == {"cut": 1}


def test_a_line_that_swallows_leaves_the_other_end_open(proxy: ChaosProxy, echo: Echo) -> None:
    proxy.set("a", up=Weather(num_bytes=1000, then="swallow"))
    with connected(proxy) as node:
        node.sendall(SENT)
        until(lambda: proxy.struck == {"swallow": 1})
    assert echo.num_received <= 1000
    with connected(proxy, "b") as other:  # what is one line's is no other's
        other.sendall(SENT)
        assert received(other, len(SENT)) == SENT
    until(lambda: len(echo.ends) == 1)
    assert proxy.num_connections("a") == 1  # its node is gone, its server does not know


def test_lines_are_cut_and_shut_on_demand(proxy: ChaosProxy, echo: Echo) -> None:
    with connected(proxy) as node:
        node.sendall(b"x")
        assert received(node, 1) == b"x"
        proxy.set("a", is_shut=True)
        proxy.cut("a")
        assert received(node, 1) == b""
        with connected(proxy) as late:
            assert received(late, 1) == b""
        proxy.set("a")
        with connected(proxy) as again:
            again.sendall(b"y")
            assert received(again, 1) == b"y"


def test_no_server_is_a_closed_connection(proxy: ChaosProxy, echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        free = unused.getsockname()[1]
    proxy.target_port = free
    with connected(proxy) as node:
        assert received(node, 1) == b""
    proxy.target_port = echo.port
    with connected(proxy) as node:
        node.sendall(b"z")
        assert received(node, 1) == b"z"
