"""Servers heard on the local network: mDNS (RFC 6762) and DNS-SD (RFC 6763), through zeroconf.

mDNS is neither authenticated nor private: anyone on the network may announce anything. What is
heard is bounded and checked, and is a place to try, no more.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from zeroconf import DNSQuestionType, Error, InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from common.address import Ip, OwnAddress, join_address, own_addresses

# Answers come 20-120 ms apart (RFC 6762, section 6): wait for the others after the first.
_SETTLE_SECONDS = 0.3
# The question goes out within 120 ms, and who spoke in the second before it, to another node say, answers when that is
# over. Two servers whose words lie apart would else be heard in turns, one of them in each search.
_ALL_SECONDS = 1.5
_MAX_SERVERS = 32
_MAX_ADDRESSES = 16


class SearchError(Exception):
    """The local network cannot be searched: no interface, or port 5353 is kept by another program."""


@dataclass(frozen=True)
class Found:
    """A server heard on the local network; texts hold only letters, digits, ``.``, ``_`` and ``-``."""

    name: str
    host: str
    port: int
    run: str
    here: bool  # on this very machine
    enrol_port: int = 0  # 0 = not told
    authority: str = ""  # the first 16 digits of its CA certificate's fingerprint: a claim, checked when it is tried

    def __str__(self) -> str:
        """``NAME at HOST:PORT (run NAME)``."""
        run = f" (run {self.run})" if self.run else ""
        return f"{self.name} at {join_address(self.host, self.port)}{run}"


def search(
    seconds: float,
    service: str,
    interfaces: Sequence[str] | None = None,
    prefer: Callable[[str], bool] = lambda _: False,
) -> list[Found]:
    """Servers that answer within ``seconds``, the one to take first; ends when all had the time to answer.

    Where the first answer is that of a server that is preferred, it ends soon after.

    Args:
        seconds: how long to wait for the first answer, >= 0.
        service: DNS-SD type to search for.
        interfaces: IPv4 addresses of the interfaces to search on; None = all.
        prefer: whether a server with this authority is taken before all others.

    Raises:
        SearchError: the network cannot be searched.
    """
    try:
        with asyncio.Runner() as runner:
            return choose(runner.run(_search(seconds, service, interfaces, prefer)), prefer)
    except (OSError, RuntimeError, Error) as error:
        raise SearchError(" ".join(str(error).split()) or type(error).__name__) from error


def choose(found: Iterable[Found], prefer: Callable[[str], bool] = lambda _: False) -> list[Found]:
    """One entry an address, the one to take first: those preferred, then servers on this machine, then by name."""
    ordered = sorted(
        found, key=lambda each: (not prefer(each.authority), not each.here, each.name, each.host, each.port)
    )
    unique: dict[tuple[str, int], Found] = {}
    for server in ordered:
        unique.setdefault((server.host, server.port), server)
    return list(unique.values())


def validated(
    name: str,
    addresses: Sequence[str],
    port: int | None,
    run: bytes | None,
    own: Sequence[OwnAddress],
    more: Mapping[bytes, bytes | None] | None = None,
) -> Found | None:
    """Make what an announcement claims into a ``Found``; None if it names no address worth trying."""
    ips = [ip for text in addresses[:_MAX_ADDRESSES] if (ip := _usable(text)) is not None]
    mine = {address.ip for address in own}
    # Another machine may have an address that we have as well (container bridges, say), which here
    # leads to ourselves: a server is on this machine only if all its addresses are ours.
    here = all(ip in mine or ip.is_loopback for ip in ips)
    candidates = ips if here else [ip for ip in ips if ip not in mine and not ip.is_loopback]
    if not candidates or port is None or not 1 <= port <= 65_535:
        return None
    best = min(candidates, key=lambda ip: (not any(ip in address.network for address in own), ip.version, int(ip)))
    told = {key: _clean((value or b"")[:63].decode("ascii", "replace")) for key, value in (more or {}).items()}
    enrol = told.get(b"enrol", "")
    enrol_port = int(enrol) if re.fullmatch(r"[0-9]{1,5}", enrol) and int(enrol) <= 65_535 else 0
    run_name = _clean((run or b"")[:63].decode("ascii", "replace"))
    return Found(_clean(name), str(best), port, run_name, here, enrol_port, told.get(b"ca", "")[:16])


async def _search(
    seconds: float, service: str, interfaces: Sequence[str] | None, prefer: Callable[[str], bool]
) -> list[Found]:
    own, clock = own_addresses(), asyncio.get_running_loop().time
    servers: dict[str, Found] = {}
    lookups: dict[str, asyncio.Task[None]] = {}
    answered = asyncio.Event()

    async def look_up(zeroconf: Zeroconf, name: str) -> None:
        if (server := await _resolve(zeroconf, service, name, seconds, own)) is not None:
            servers[name] = server
            answered.set()

    def heard(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed:
            servers.pop(name, None)
            if lookup := lookups.pop(name, None):
                lookup.cancel()  # what it asks for is gone; a server that starts again is looked up anew
        elif name not in lookups and len(lookups) < _MAX_SERVERS:
            lookups[name] = asyncio.create_task(look_up(zeroconf, name))

    on = InterfaceChoice.All if interfaces is None else list(interfaces)
    async with AsyncZeroconf(interfaces=on, ip_version=IPVersion.V4Only) as network:
        # Multicast answers (QM): a unicast one goes to port 5353, which on this machine another
        # program (Avahi, the server itself) may share and then swallow the answer.
        all_in = clock() + _ALL_SECONDS
        browser = AsyncServiceBrowser(network.zeroconf, service, [heard], question_type=DNSQuestionType.QM)
        with suppress(TimeoutError):
            await asyncio.wait_for(answered.wait(), seconds)
            is_known = any(prefer(server.authority) for server in servers.values())
            await asyncio.sleep(max(_SETTLE_SECONDS, 0.0 if is_known else all_in - clock()))
        await browser.async_cancel()
        for lookup in lookups.values():
            lookup.cancel()
        await asyncio.gather(*lookups.values(), return_exceptions=True)
    return list(servers.values())


async def _resolve(
    zeroconf: Zeroconf, service: str, name: str, seconds: float, own: Sequence[OwnAddress]
) -> Found | None:
    try:
        info = AsyncServiceInfo(service, name)
        complete = await info.async_request(zeroconf, seconds * 1000, DNSQuestionType.QM)
    except (Error, OSError, ValueError):  # a name that is no service of ours, or that breaks DNS-SD's rules
        return None
    if not complete:
        return None
    instance = name.removesuffix(service).rstrip(".")
    return validated(instance, info.parsed_addresses(), info.port, info.properties.get(b"run"), own, info.properties)


def _usable(text: str) -> Ip | None:
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A link-local IPv6 address means nothing without the interface it was heard on.
    useless = ip.is_multicast or ip.is_unspecified or (ip.version == 6 and ip.is_link_local)
    return None if useless or ip == ipaddress.IPv4Address("255.255.255.255") else ip


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63]
