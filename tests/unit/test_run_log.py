"""Rule: run.log takes what loggers say at INFO and above while the run is open, and never ends it."""

import logging
from datetime import datetime
from pathlib import Path

import pytest

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
