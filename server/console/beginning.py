"""What there is to tell when a run begins."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Beginning:
    """A run that begins, or goes on."""

    run_dir: Path
    address: str | None  # HOST:PORT where the link is served; None = no link
    rounds: int  # in all, 1..
    model: str
    engine: str
    first_round: int = 1  # that is still to do
    baseline: str = "none"
    token: str = ""  # lets nodes of other machines join, "" where they need none; a secret, shown on the console alone
