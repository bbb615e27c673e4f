"""Rule: a task that a server under a kill loop told of has a verdict, and no more have one than it may have issued."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.soak_accounts import LATE_ROUNDS, account_of

BEGUN = {"event": "started", "first_round": 1}
TOLD = {"event": "round_started", "round": 1, "num_nodes": 2}


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.parametrize(
    ("events", "num_verdicts", "unexplained"),
    [
        ([BEGUN, TOLD], 2, []),
        ([BEGUN, TOLD], 1, ["round 1: [2] tasks issued, 1 verdicts"]),
        ([BEGUN, TOLD], 3, ["round 1: [2] tasks issued, 3 verdicts"]),
        ([BEGUN, TOLD, BEGUN, TOLD], 3, []),  # the second life asked other nodes
        ([BEGUN, TOLD, BEGUN, TOLD], 5, ["round 1: [2, 2] tasks issued, 5 verdicts"]),
        ([BEGUN, BEGUN, TOLD], 3, []),  # the first one was killed before it could tell whom it had asked
    ],
)
def test_verdicts_are_held_against_what_was_told(
    tmp_path: Path, events: list[dict[str, Any]], num_verdicts: int, unexplained: list[str]
) -> None:
    write(tmp_path / "metrics.jsonl", *({"round": number} for number in range(LATE_ROUNDS + 2)))  # 1 is settled
    verdicts = ({"task": f"t/1/{node}", "round": 1, "node": node, "verdict": "expired"} for node in "abcde")
    write(tmp_path / "ledger.jsonl", *list(verdicts)[:num_verdicts])
    account = account_of(tmp_path, events, worked_on=[])
    assert list(account.unexplained) == unexplained
    assert account.expired == num_verdicts
