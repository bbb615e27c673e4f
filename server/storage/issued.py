"""Whom a round asks, written down before it does: tasks of a server that dies get their verdicts from the next."""

from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from server.grids import Node
from server.report import NodeReport
from server.storage.durable import write_atomically

FILE = ".issued.json"
LOST = "the server ended in this round, and the node was not asked when the round was done again"


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    round: int
    shards: dict[str, int]  # by the name of the node


def begin(path: Path, number: int, nodes: Sequence[Node]) -> None:
    """Write down in the run directory ``path`` whom round ``number`` asks.

    Those whom a server asked in it that ended since stay written down.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    asked = _Asked(round=number, shards=_asked_in(path, number) | {node.name: node.shard for node in nodes})
    write_atomically(path / FILE, asked.model_dump_json().encode())


def lost(path: Path, run: str, number: int, known: Collection[str]) -> list[NodeReport]:
    """Verdicts on those tasks of round ``number`` that are not among the ``known`` ones, which have one or will."""
    asked = ((f"{run}/{number}/{node}", node, shard) for node, shard in _asked_in(path, number).items())
    return [NodeReport.expired(task, number, node, shard, LOST) for task, node, shard in asked if task not in known]


def _asked_in(path: Path, number: int) -> dict[str, int]:
    """The shards of the nodes that round ``number`` has asked, by name; none if that is damaged or missing."""
    try:
        asked = _Asked.model_validate_json((path / FILE).read_bytes())
    except (OSError, ValidationError):
        return {}
    return asked.shards if asked.round == number else {}
