"""The stage of all crashes and failing disks of a session: its processes start once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common import mnist
from tests.faults.crash_trials import Stage
from tests.faults.nursery import Nursery


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, state_folder: Path) -> Iterator[Stage]:
    mnist.load_labels("train")
    with Nursery() as nursery:
        yield Stage(nursery, tmp_path_factory.mktemp("faults"), state_folder / "cache")
