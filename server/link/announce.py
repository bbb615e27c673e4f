"""Lets clients find this server on the local network: announces it with mDNS while it serves."""

import ipaddress
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from zeroconf import Error, IPVersion, ServiceInfo, Zeroconf

from common.address import SERVICE, Ip, own_addresses

_LOOPBACK = "127.0.0.1"
_MAX_ADDRESSES = 16
# Bridges to containers and virtual machines: their addresses repeat on every host, so clients elsewhere
# would reach themselves. (A `br-` of Docker has 12 hex digits; `br-lan` is a real network.)
_VIRTUAL = re.compile(r"docker\d|podman\d|virbr\d|cni|flannel|br-[0-9a-f]{12}$")


@contextmanager
def announced(
    host: str,
    port: int,
    *,
    run: str,
    protocol: int,
    enrol_port: int = 0,
    authority: str = "",
    service: str = SERVICE,
) -> Iterator[str]:
    """Announce the server at ``host:port`` for as long as the context lasts.

    On a loopback ``host`` only the loopback interface hears of it: nothing leaves the machine.

    Args:
        host: the address the server listens on; ``0.0.0.0`` and ``::`` stand for all of this machine's.
        port: the TCP port it listens on, 1..65535.
        run: name of the run, told to those who look.
        protocol: version of the link's protocol.
        enrol_port: the TCP port where nodes enrol, 0 = there is none.
        authority: fingerprint of the server's CA certificate, "" without TLS; its first 16 digits are told.
        service: DNS-SD type to announce under.

    Yields:
        "" or, where announcing failed, a warning for people. It never ends the server.
    """
    network: Zeroconf | None = None
    warning = ""
    try:
        addresses = announced_addresses(host)
        properties = {"protocol": str(protocol), "run": run[:63], "enrol": str(enrol_port)}
        properties["ca"] = authority[:16]
        info = _service(addresses, port, properties, service)
        network = Zeroconf(interfaces=_interfaces(addresses), ip_version=IPVersion.V4Only, use_asyncio=False)
        # No probing for a name of our own (0.6 s): an address and a port name one server on a network.
        network.register_service(info, cooperating_responders=True)
    except (OSError, RuntimeError, ValueError, Error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        warning = (
            f"cannot announce this server on the local network ({reason}); clients find it with --server HOST:{port}"
        )
    try:
        yield warning
    finally:
        if network is not None:
            network.close()  # says goodbye first


def announced_addresses(host: str) -> list[Ip]:
    """Addresses at which clients reach a server that listens on ``host``, at most 16, IPv4 first.

    Raises:
        OSError: ``host`` is a name that has no address.
    """
    if host not in ("", "0.0.0.0", "::"):  # noqa: S104 — compared, not bound
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        given = {ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers}
        return sorted(given, key=_order)[:_MAX_ADDRESSES]
    versions = (4, 6) if host == "::" else (4,)
    reachable = {
        own.ip
        for own in own_addresses()
        if own.ip.version in versions
        and not own.ip.is_loopback
        and not (own.ip.version == 6 and own.ip.is_link_local)
        and not _VIRTUAL.match(own.interface)
    }
    return sorted(reachable, key=_order)[:_MAX_ADDRESSES] or [ipaddress.ip_address(_LOOPBACK)]


def _order(ip: Ip) -> tuple[int, bool, int]:
    return ip.version, ip.is_link_local, int(ip)


def _service(addresses: list[Ip], port: int, properties: dict[str, str], service: str) -> ServiceInfo:
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0])[:20].strip("-") or "fedge"
    # A label of DNS has at most 63 bytes, and Zeroconf splits names at dots.
    address = str(addresses[0]).replace(".", "-").replace(":", "-").strip("-")
    label = f"{host}-{address}-{port}"[:63]
    return ServiceInfo(
        service,
        f"{label}.{service}",
        port=port,
        properties=dict(properties),  # zeroconf's type is not covariant
        server=f"{label}.local.",
        parsed_addresses=[str(ip) for ip in addresses],
    )


def _interfaces(addresses: list[Ip]) -> list[str]:
    own = [str(address.ip) for address in own_addresses() if address.ip.version == 4]
    announced_on = [str(ip) for ip in addresses if str(ip) in own and ip.version == 4]
    if any(ip.version == 6 and not ip.is_loopback for ip in addresses):
        announced_on = own
    return sorted({_LOOPBACK, *announced_on})
