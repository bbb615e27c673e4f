"""Where the client finds its server: flag > environment > settings > local network (mDNS) > 127.0.0.1:8080."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from common.address import DEFAULT_PORT, SERVICE, join_address, parse_address

SEARCH_SECONDS = 2.0
_NAME_ANOTHER = "name another with --server HOST:PORT"


@dataclass(frozen=True)
class Place:
    """Where to connect, and why there.

    Attributes:
        host: a host name or an IP address, without brackets.
        port: 1..65535.
        how: one or two sentences for people.
        source: what named it. After ``network`` and ``default`` a client that cannot connect
            should look again: the server may have come up elsewhere.
        enrol_port: where the server said that it enrols nodes, 0 = it did not say.
    """

    host: str
    port: int
    how: str
    source: Literal["flag", "environment", "settings", "network", "default"]
    enrol_port: int = 0

    @property
    def address(self) -> str:
        """``HOST:PORT``, IPv6 in brackets."""
        return join_address(self.host, self.port)


def find_server(
    flag: str | None,
    environment: str | None,
    configured: str | None,
    search_seconds: float = SEARCH_SECONDS,
    *,
    interfaces: Sequence[str] | None = None,
    service: str = SERVICE,
    prefer: Callable[[str], bool] = lambda _: False,
) -> Place:
    """Find the server to join; searches the network only if nobody named one.

    Args:
        flag: ``--server``, None where not given.
        environment: ``FEDGE_SERVER``, None or empty where not set.
        configured: ``client.server`` of the settings, None or empty where not set.
        search_seconds: how long to wait for an answer on the local network, >= 0.
        interfaces: IPv4 addresses of the interfaces to search on; None = all.
        service: DNS-SD type to search for.
        prefer: whether a server with this authority (see ``Found``) is taken before all others.

    Raises:
        UsageError: a named address is not of the form HOST:PORT.
    """
    if flag is not None:
        host, port = parse_address(flag, "--server")
        return Place(host, port, f"server {join_address(host, port)}, named with --server", "flag")
    if environment:
        host, port = parse_address(environment, "FEDGE_SERVER")
        how = f"server {join_address(host, port)}, named by FEDGE_SERVER; {_NAME_ANOTHER}"
        return Place(host, port, how, "environment")
    if configured:
        host, port = parse_address(configured, "client.server")
        how = f"server {join_address(host, port)}, named by client.server in the settings; {_NAME_ANOTHER}"
        return Place(host, port, how, "settings")
    return _on_network(search_seconds, interfaces, service, prefer)


def _on_network(seconds: float, interfaces: Sequence[str] | None, service: str, prefer: Callable[[str], bool]) -> Place:
    from client.search import Found, SearchError, search  # here: a client told its server never loads zeroconf

    tried = f"no server found on the local network in {seconds:g} s (many access points block multicast)"
    servers: list[Found] = []
    try:
        servers = search(seconds, service, interfaces, prefer)
    except SearchError as error:
        tried = f"the local network cannot be searched ({error})"
    if not servers:
        how = f"{tried}; trying 127.0.0.1:{DEFAULT_PORT} — {_NAME_ANOTHER}"
        return Place("127.0.0.1", DEFAULT_PORT, how, "default")
    first, *others = servers
    how = f"server {first}, found on the local network; {_NAME_ANOTHER}"
    if others:
        also = ", ".join(str(server) for server in others[:3]) + (", …" if len(others) > 3 else "")
        how = f"{len(servers)} servers found on the local network, taking {first}; also {also} — {_NAME_ANOTHER}"
    return Place(first.host, first.port, how, "network", first.enrol_port)
