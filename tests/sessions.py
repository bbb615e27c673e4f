"""Sessions of the link, on streams that a test plays."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from server.grids import Node
from server.link.reads import Reads
from server.link.sends import Sends
from server.link.session import Session

if TYPE_CHECKING:
    import grpc

BEAT_SECONDS = 2.0


def sessions_on(streams: Sequence[object], sends: Sends, reads: Reads) -> list[Session]:
    """One of each stream, of the nodes n0, n1, ..., which share turns."""
    return [
        Session(
            Node(place + 1, f"n{place}", place),
            cast("grpc.aio.ServicerContext[bytes, bytes]", stream),
            "",
            sends,
            reads,
            BEAT_SECONDS,
        )
        for place, stream in enumerate(streams)
    ]
