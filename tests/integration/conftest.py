"""What integration tests share: a fleet for the toy model, what it tells, and a thread that waits aside."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.fleet import Fleet
from tests.link_twins import Diary, fleet_with, link_settings


@pytest.fixture
def diary() -> Diary:
    """What the fleet tells its listener."""
    return Diary()


@pytest.fixture
def fleet(diary: Diary) -> Iterator[Fleet]:
    """A server on a port of this machine, open to all; some modules have another one."""
    with fleet_with(diary, link_settings()) as fleet:
        yield fleet


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    """Where an exchange waits while the test plays its nodes."""
    with ThreadPoolExecutor(1) as pool:
        yield pool
