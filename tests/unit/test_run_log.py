"""Rule: run.log takes what loggers say at INFO and above while the run is open, and never ends it."""

import logging
from datetime import datetime
from pathlib import Path

import pytest

from common.texts import one_line
from server.storage.run_directory import RunDirectory
from tests.tiny_runs import SETTINGS, tiny_run


def test_the_log_takes_info_and_above_with_iso_times_until_it_is_closed(tmp_path: Path) -> None:
    root_level = logging.getLogger().level
    with tiny_run(tmp_path):
        logging.getLogger("one").info("kept · this")
        logging.getLogger("one").debug("not this")
        logging.getLogger("two").warning("and this")
    logging.getLogger("one").warning("not this either")
    lines = (tmp_path / "a" / "run.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["INFO one: kept · this", "WARNING two: and this"]
    assert datetime.fromisoformat(lines[0].split(" ")[0]).utcoffset() is not None
    assert logging.getLogger().level == root_level


def test_what_a_node_says_is_one_line_that_commands_no_terminal(tmp_path: Path) -> None:
    forged = "2026-11-26T08:00:00.000+00:00 INFO server.conductor: round 99: accuracy 1.0000"
    with tiny_run(tmp_path):
        said = f"codec \r\n{forged}\u2028\x1b[2J\x07\u202e"
        logging.getLogger("one").info("refused %s: %s", "10.0.0.2:5", said)
    text = (tmp_path / "a" / "run.log").read_text()
    assert text.split(" ", 1)[1] == f"INFO one: refused 10.0.0.2:5: codec   {forged} ?[2J??\n"
    assert one_line("\ud800") == "?"  # not logged here: whoever runs the tests side by side could not pass it on


def test_a_traceback_is_moved_in_so_that_none_of_its_lines_looks_like_a_message(tmp_path: Path) -> None:
    with tiny_run(tmp_path):
        try:
            raise ValueError("it says\nINFO server: \x1b[2Jall is well")
        except ValueError:
            logging.getLogger("one").exception("cannot draw")
    message, first, *between, said, more = (tmp_path / "a" / "run.log").read_text().splitlines()
    assert message.endswith(" ERROR one: cannot draw")
    assert first == "  Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in between)
    assert (said, more) == ("  ValueError: it says", "  INFO server: ?[2Jall is well")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_log_that_cannot_be_written_costs_lines_and_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "settings.yaml").write_text("")
    (tmp_path / "a" / "run.log").symlink_to("/dev/full")
    with RunDirectory(tmp_path / "a", SETTINGS):
        logging.getLogger("one").warning("lost")
    assert capsys.readouterr().err == ""
