"""Rule: what a ServerApp says on a SuperLink reaches who submitted it: its own lines, its sentence, its exit code."""

import io

import pytest

from common.errors import FedgeError, Interrupted, RunFailed, SettingsError, UsageError
from server.engines.telling import from_details, marked, to_exception, unmarked


def test_lines_of_ours_are_told_from_all_others() -> None:
    log = io.StringIO()
    console = marked(log)
    console.write("Round 1/2\n  rejected shard-3: no\n\n")
    console.flush()
    log.write("INFO :      [ROUND 1/2]\n")
    lines = log.getvalue().splitlines(keepends=True)
    assert [unmarked(line) for line in lines] == ["Round 1/2", "  rejected shard-3: no", "", None]


def test_the_encoding_is_that_of_the_stream() -> None:
    assert marked(io.TextIOWrapper(io.BytesIO(), encoding="ascii")).encoding == "ascii"
    assert marked(io.StringIO()).encoding == "utf-8"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RunFailed("only 1 of 2 nodes came"), RunFailed),
        (SettingsError("run.seed must be at least 0,\ngot -1"), UsageError),
        (Interrupted("round 3 is saved"), Interrupted),
    ],
)
def test_an_error_comes_back_with_its_text_and_exit_code(error: FedgeError, kind: type[FedgeError]) -> None:
    back = from_details(f"ServerApp failed with exception: {to_exception(error)}")
    assert type(back) is kind
    assert (str(back), back.exit_code) == (str(error), error.exit_code)


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ("No heartbeat received from the task", "No heartbeat received from the task"),
        ("ServerApp failed with exception: 'rounds' [exit 77]", "'rounds'"),
        ("", "the SuperLink does not say why"),
    ],
)
def test_foreign_words_are_a_failed_run(details: str, text: str) -> None:
    error = from_details(details)
    assert (type(error), str(error)) == (RunFailed, text)
