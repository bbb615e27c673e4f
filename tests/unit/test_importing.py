"""Rule: while large packages are imported nobody looks for garbage, and afterwards all is as it was."""

import gc
import subprocess
import sys
from multiprocessing import forkserver

import pytest

from common.importing import without_collector
from server import fork_server


@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_collector_rests_and_is_then_as_it_was(was_enabled: bool) -> None:
    states = []

    def fail() -> None:
        states.append(gc.isenabled())
        raise ImportError

    try:
        (gc.enable if was_enabled else gc.disable)()
        with pytest.raises(ImportError), without_collector():
            fail()
        states.append(gc.isenabled())
    finally:
        gc.enable()
    assert states == [False, was_enabled]


def test_what_workers_are_forked_with_imports_all_that_they_need_and_leaves_the_collector_on() -> None:
    """A fork server says nothing of a module that it cannot import: workers would only be slow."""
    needed = {"client.together", "server.workers"}
    script = f"import gc, sys, server.preloaded; print(gc.isenabled(), {needed} <= set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == (
        "True True\n"
    )


def test_the_fork_server_is_told_of_that_module() -> None:
    fork_server.begin()
    assert forkserver._forkserver._preload_modules == ["server.preloaded"]  # type: ignore[attr-defined]
