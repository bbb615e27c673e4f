"""A federation of real processes for one test, and the one run that many tests compare with."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.e2e.processes import TINY, Federation, as_flags


@pytest.fixture
def federation(tmp_path: Path, own_state: Path) -> Iterator[Federation]:
    """Starts processes; none of them outlives the test."""
    del own_state  # it is in the environment of every process
    processes = Federation(tmp_path)
    try:
        yield processes
    finally:
        processes.end()


@pytest.fixture(scope="session")
def simulated(session_folder: Path, state_folder: Path) -> Path:
    """The run directory of four tiny rounds on shards 0 and 1, simulated: what every way there must come to."""
    del state_folder  # it is in the environment
    folder = session_folder / "simulated"
    with FileLock(session_folder / "simulated.lock"):
        if not (folder / "runs" / "reference").exists():
            shutil.rmtree(folder, ignore_errors=True)
            processes = Federation(folder)
            try:
                flags = ("--simulate", "2", "--rounds", "4", "--name", "reference", *as_flags(TINY))
                server = processes.server(*flags)
                assert server.exit_code() == 0, server
            finally:
                processes.end()
    return folder / "runs" / "reference"
