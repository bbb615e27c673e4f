"""Addresses: how people write one, which are this machine's own, and under what name servers announce theirs."""

import ipaddress
import re
from typing import NamedTuple

import psutil

from common.errors import UsageError

DEFAULT_PORT = 8080
SERVICE = "_fedge._tcp.local."  # DNS-SD type (RFC 6763) under which a server announces itself

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}")  # an interface name on Linux has at most 15 characters


class OwnAddress(NamedTuple):
    """One address of this machine."""

    interface: str
    ip: Ip
    network: ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_address(text: str, source: str) -> tuple[str, int]:
    """Split ``HOST``, ``HOST:PORT``, ``[IPv6]:PORT`` or a bare IPv6 address; the port defaults to 8080.

    Args:
        text: what a person wrote.
        source: where they wrote it (``--server``), for the message.

    Raises:
        UsageError: the text is no such address.
    """
    stripped = text.strip()
    if bracketed := re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", stripped):
        host, port_text = bracketed.groups()
        valid = _is_ipv6(host)
    elif _is_ipv6(stripped):
        host, port_text, valid = stripped, None, True
    else:
        host, colon, rest = stripped.partition(":")
        port_text = rest if colon else None
        valid = _is_name_or_ipv4(host) and "/" not in rest  # a URL is no address
    if not valid:
        raise UsageError(f"{source} must be HOST:PORT (IPv6: [ADDRESS]:PORT), got {_short(text)}")
    return host, DEFAULT_PORT if port_text is None else _port(port_text, text, source)


def join_address(host: str, port: int) -> str:
    """``HOST:PORT``, with brackets around an IPv6 host: what ``parse_address`` reads back."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_addresses() -> tuple[OwnAddress, ...]:
    """Every IP address of this machine with its network, in a fixed order; empty where none is known."""
    try:
        interfaces = psutil.net_if_addrs()
    except (OSError, psutil.Error):
        return ()
    found = []
    for interface, entries in sorted(interfaces.items()):
        for entry in entries:
            try:
                ip = ipaddress.ip_address(entry.address.partition("%")[0])
                # The mask may be missing, and `ip_network` takes no IPv6 mask: its ones are the prefix length.
                ones = int(ipaddress.ip_address(entry.netmask or "")).bit_count()
            except ValueError:
                continue
            found.append(OwnAddress(interface, ip, ipaddress.ip_interface(f"{ip}/{ones}").network))
    return tuple(found)


def _is_ipv6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or _ZONE.fullmatch(zone) is not None


def _is_name_or_ipv4(host: str) -> bool:
    if len(host) > 253 or not _HOST_NAME.fullmatch(host):
        return False
    last = host.rstrip(".").rpartition(".")[2]
    if not last.isdigit():
        return True
    try:  # a last part of digits is no host name, so `8080` alone and `10.0.0.300` are slips
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _port(port_text: str, text: str, source: str) -> int:
    if re.fullmatch(r"[0-9]{1,5}", port_text) and 1 <= int(port_text) <= 65_535:
        return int(port_text)
    raise UsageError(f"{source} must end in a port from 1 to 65535, got {_short(text)}")


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}…"
