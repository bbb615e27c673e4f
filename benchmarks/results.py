"""What finished runs came to, a line of JSON each, in a file that the repository keeps: a fresh clone has it too."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.storage.durable import read_json_lines


@dataclass(frozen=True)
class Result:
    """One run, to its goal or to its last round."""

    name: str
    settings: Mapping[str, Any]  # {"section.key": value} of all that is not as in configs/default.yaml
    measure: str  # the key of metrics.jsonl that ``accuracy`` is of
    accuracy: Sequence[float]  # 0..1, after round 0, 1, …
    bytes: Sequence[int]  # of all nodes, both ways, in round 1, 2, …
    versions: Mapping[str, str]
    date: str  # YYYY-MM-DD


def read(path: Path) -> dict[str, Result]:
    """The newest result of every name in ``path``; none if there is no file."""
    return {line["name"]: Result(**line) for line in read_json_lines(path)}


def append(path: Path, result: Result) -> None:
    """Add ``result`` to the end of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")
