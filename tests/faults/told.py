"""What processes have told, each into a file of its name, over all their lives."""

import json
from pathlib import Path
from typing import Any


def said(folder: Path, who: str) -> str:
    """All that it wrote to its terminal."""
    path = folder / f"{who}.txt"
    return path.read_text(errors="replace") if path.exists() else ""


def events(folder: Path) -> list[dict[str, Any]]:
    """What the server told as JSON; a line that a kill tore is none."""
    found = []
    for line in said(folder, "server").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [event for event in found if isinstance(event, dict)]
