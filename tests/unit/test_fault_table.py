"""Rule: what the parts of ``make faults`` came to is one table, with all that was measured beside and what failed."""

import sys
from pathlib import Path

import pytest

from tests.faults import everything, results
from tests.faults.everything import page
from tests.faults.outcome import Outcome


def test_the_parts_outcomes_become_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "results.jsonl"
    monkeypatch.setenv(results.VARIABLE, str(kept))
    results.keep("node killed", Outcome("first", 1, True, True, 6, 6))
    results.keep("network faults", Outcome("seed 0", 7, True, False, 12, 8, 1, 3, 2, ("one is lost",)))
    results.keep_figure("Longest overrun", "0.027 s")
    results.keep("damaged files", Outcome("last.pt", 600, True, None))
    results.keep("node killed", Outcome("second", 1000, False, True, 6, 5, 0, 1))

    *table, _, head, _, figure, _, when, _, failed = page(
        kept, [("tests.faults.network", "--schedules", "3")], 89.0
    ).splitlines()
    assert table[2:] == [
        "| node killed | 2 | 1,001 | 1 | 2 of 2 | 12 | 11 | 0 | 0 | 1 | 0 |",
        "| network faults | 1 | 7 | 1 | 0 of 1 | 12 | 8 | 2 | 1 | 3 | 1 |",
        "| damaged files | 1 | 600 | 1 | – | – | – | – | – | – | 0 |",
        "| **all** | 4 | 1,608 | 3 | 2 of 3 | 24 | 19 | 2 | 1 | 4 | 1 |",
    ]
    assert (head, figure) == ("| Measured beside | |", "| Longest overrun | 0.027 s |")
    assert when.endswith(" cores, 1 minutes.")
    assert failed == "**Not as promised: tests.faults.network --schedules 3.**"


def test_nothing_is_kept_unless_somebody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(results.VARIABLE, raising=False)
    results.keep("node killed", Outcome("first", 1, True, True))
    assert results.read(tmp_path / "results.jsonl") == ({}, [])


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--schedules", "3"], 2)])
def test_half_an_hour_is_not_begun_for_words_that_ask_for_something_else(
    monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["everything", *words])
    monkeypatch.setattr(everything, "PARTS", ())
    monkeypatch.setattr(everything, "write_between_marks", lambda *_: None)

    with pytest.raises(SystemExit) as ended:
        everything.main()

    assert ended.value.code == code
