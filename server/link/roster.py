"""Who may join, under which name and with which shard: pure rules, no network.

One shard, one node. A node is its name together with its key, which it keeps over restarts: the
same node coming back replaces its former self at once; another one claiming its name or its shard
is told so.
"""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from common import fleet_pb2 as pb
from common.codecs import PLAIN
from common.names import NAME
from common.records import OWN_DATA
from common.wire import PROTOCOL_VERSION
from server.admission.refused import Refused
from server.grids import Node

KEY = re.compile(r"[0-9a-f]{32}")
MAX_NODES = 10_000
MAX_CODECS = 64  # that a node may name
SHARD_GRACE_SECONDS = 600.0  # a shard whose node left is given to `--shard auto` only after this


@dataclass(frozen=True)
class Member:
    """A node that has joined once in this server's life."""

    node: Node
    key: str
    live: bool
    left_at: float = 0.0  # seconds on this roster's clock
    is_leased: bool = False  # it went without a word: for a while its shard waits for it


class Roster:
    """Names, keys and shards of all nodes seen, and which of them are here."""

    def __init__(
        self,
        num_shards: int,
        max_own_examples: int,
        lease_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        declare: Callable[[str, int], None] | None = None,
        codecs: Sequence[str] = (),
    ) -> None:
        """For ``lease_seconds`` after a node's link broke, nobody else is given its shard.

        ``declare`` is told how many examples of its own a node says that it has, and may raise ``Refused``. ``codecs``
        are those that every node must know.
        """
        self._declare, self._codecs = declare, codecs
        self._lease_seconds = lease_seconds
        self._num_shards = num_shards
        self._max_own_examples = max_own_examples
        self._clock = clock
        self._members: dict[str, Member] = {}

    def admit(self, hello: pb.Hello, software_version: str = "") -> Node:
        """Let a node in, or back in.

        Raises:
            Refused: another protocol version, a codec that it does not know, a bad or taken name, a shard that is taken
                or does not exist.
        """
        if hello.protocol_version != PROTOCOL_VERSION:
            raise Refused(
                f"this server speaks protocol version {PROTOCOL_VERSION} (Fedge {software_version}), the node version"
                f" {hello.protocol_version} (Fedge {hello.software_version:.20}): install the same Fedge on both"
            )
        known_codecs = list(hello.codecs)[:MAX_CODECS] or [PLAIN]
        if unknown := [codec for codec in self._codecs if codec not in known_codecs]:
            raise Refused(
                f"the weights of this run travel as {' and '.join(unknown)} (link.codec, link.broadcast_codec), the"
                f" node knows {', '.join(known_codecs):.100} (Fedge {hello.software_version:.20}): install the same"
                " Fedge on both"
            )
        if not NAME.fullmatch(hello.name) or not KEY.fullmatch(hello.key):
            raise Refused("a node's name must be 1 to 63 of A-Z a-z 0-9 . _ - and its key 32 hexadecimal digits")
        known = self._members.get(hello.name)
        if known and known.live and known.key != hello.key:
            raise Refused(f"the name {hello.name} is in use by another node: choose one with --name")
        if known is None and len(self._members) >= MAX_NODES:
            raise Refused(f"this server has {MAX_NODES} nodes already", retry=True)
        own = known if known and known.key == hello.key else None
        shard, own_examples = self._data(hello, own)
        node = Node(node_id(hello.name), hello.name, shard, own_examples)
        self._members[hello.name] = Member(node, hello.key, live=True)
        return node

    def leave(self, node: Node, with_a_word: bool = True) -> None:
        """The node's link is gone; if it did not say why, its shard waits for it."""
        member = self._members[node.name]
        self._members[node.name] = replace(member, live=False, left_at=self._clock(), is_leased=not with_a_word)

    def seen(self) -> list[Node]:
        """All nodes that joined in this server's life."""
        return [member.node for member in self._members.values()]

    def _data(self, hello: pb.Hello, own: Member | None) -> tuple[int, int]:
        kind = hello.WhichOneof("data")
        if kind == "own_examples":
            if not 1 <= hello.own_examples <= self._max_own_examples:
                raise Refused(
                    f"{hello.own_examples} examples of its own, this server takes 1 to {self._max_own_examples}"
                    " (federation.max_own_examples)"
                )
            if self._declare:
                self._declare(hello.name, hello.own_examples)
            return OWN_DATA, hello.own_examples
        if kind == "shard":
            return self._asked(hello.shard, hello.name), 0
        return self._any(own, hello.name), 0

    def _asked(self, shard: int, name: str) -> int:
        if shard >= self._num_shards:
            divided = f"the training set is divided into {self._num_shards} shards, 0 to {self._num_shards - 1}"
            raise Refused(f"shard {shard} does not exist: {divided}")
        holders = self._holders()
        holder = holders.get(shard)
        if holder is None or self._is_free(holder, name):
            return shard
        if holder.live:
            free = [str(number) for number in range(self._num_shards) if self._is_free(holders.get(number), name)]
            others = f" or one of: {', '.join(free[:10])}" if free else ""
            raise Refused(f"shard {shard} is held by node {holder.node.name}: take another with --shard auto{others}")
        left = self._lease_left(holder)
        kept = f"shard {shard} is kept for node {holder.node.name}, whose link broke, for {left:.0f} s more"
        raise Refused(kept, retry=True)

    def _any(self, own: Member | None, name: str) -> int:
        holders = self._holders()
        if own and own.node.shard != OWN_DATA and self._is_free(holders[own.node.shard], name):
            return own.node.shard
        for shard in range(self._num_shards):
            if shard not in holders:
                return shard
        gone = sorted((holder.left_at, shard) for shard, holder in holders.items() if self._is_free(holder, name))
        if gone and self._clock() - gone[0][0] >= SHARD_GRACE_SECONDS:
            return gone[0][1]
        raise Refused("every shard is held by another node", retry=True)

    def _is_free(self, holder: Member | None, name: str) -> bool:
        """Whether the node called ``name`` may have a shard: nobody else holds it, or is it kept for."""
        if holder is None or holder.node.name == name:
            return True
        return not holder.live and self._lease_left(holder) <= 0

    def _lease_left(self, holder: Member) -> float:
        return holder.left_at + self._lease_seconds - self._clock() if holder.is_leased else 0.0

    def _holders(self) -> dict[int, Member]:
        """Who holds each shard that has been given: a live node, else the one that left last."""
        given = sorted(
            (m for m in self._members.values() if m.node.shard != OWN_DATA), key=lambda m: (m.live, m.left_at)
        )
        return {member.node.shard: member for member in given}


def node_id(name: str) -> int:
    """A node's id for Flower: positive, 63 bits, the same in every run."""
    return (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1) or 1
