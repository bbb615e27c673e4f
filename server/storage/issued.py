"""Whom a round asks, written down before it does: tasks of a server that dies get their verdicts from the next."""

import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from server.grids import Node
from server.report import NodeReport
from server.storage.durable import write_atomically

FILE = ".issued.json"
LOST = "the server ended in this round, and the node was not asked when the round was done again"
# A disk that hangs may still write down one round's replacement when the next round begins.
_ONE_AT_A_TIME = threading.Lock()


class Asked(BaseModel):
    """Whom a round has asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round: int
    shards: dict[str, int]  # by the name of the node

    def of(self, number: int) -> dict[str, int]:
        """The shards of the nodes that round ``number`` has asked, by name."""
        return self.shards if self.round == number else {}


def begin(path: Path, number: int, nodes: Sequence[Node]) -> None:
    """Write down in the run directory ``path`` whom round ``number`` asks.

    Those whom a server asked in it that ended since stay written down.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    with _ONE_AT_A_TIME:
        shards = asked(path).of(number) | {node.name: node.shard for node in nodes}
        write_atomically(path / FILE, Asked(round=number, shards=shards).model_dump_json().encode())


def asked(path: Path) -> Asked:
    """What is written down in the run directory ``path``; nobody if that is damaged or missing."""
    try:
        return Asked.model_validate_json((path / FILE).read_bytes())
    except (OSError, ValidationError):
        return Asked(round=0, shards={})


def lost(before: Asked, run: str, number: int, known: Collection[str]) -> list[NodeReport]:
    """Verdicts on those tasks of round ``number`` that are not among the ``known`` ones, which have one or will.

    ``before`` is whom servers had asked that have ended; those of this one are known, if they went out.
    """
    tasks = ((f"{run}/{number}/{node}", node, shard) for node, shard in before.of(number).items())
    return [NodeReport.expired(task, number, node, shard, LOST) for task, node, shard in tasks if task not in known]
