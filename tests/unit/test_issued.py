"""Rule: whom a round asks is written down for the next server, whatever a disk still writes for the round before."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from common.training import Evaluation
from server.grids import Node
from server.storage import issued
from server.storage.run_directory import RunDirectory
from tests.link_twins import PATIENCE_SECONDS
from tests.tiny_runs import tiny_round, tiny_run, tiny_state

A, B, C = Node(1, "a", 0), Node(2, "b", 1), Node(3, "c", 2)


def test_all_whom_a_round_asks_are_written_down_until_the_next_one_begins(tmp_path: Path) -> None:
    issued.begin(tmp_path, 1, [A, B])
    issued.begin(tmp_path, 1, [C])
    assert issued.asked(tmp_path).of(1) == {"a": 0, "b": 1, "c": 2}
    issued.begin(tmp_path, 2, [B])
    assert (issued.asked(tmp_path).of(1), issued.asked(tmp_path).of(2)) == ({}, {"b": 1})


def test_a_disk_that_hangs_over_one_round_does_not_spoil_what_is_written_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, goes_on, sync = threading.Event(), threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        if not hangs.is_set():
            hangs.set()
            goes_on.wait(PATIENCE_SECONDS)
        sync(descriptor)

    monkeypatch.setattr("os.fsync", slow)
    with ThreadPoolExecutor(2) as disk:
        former = disk.submit(issued.begin, tmp_path, 1, [C])
        hangs.wait(PATIENCE_SECONDS)
        new = disk.submit(issued.begin, tmp_path, 2, [A])
        wait([new], timeout=0.2)  # that it waits cannot be seen
        goes_on.set()
        former.result(PATIENCE_SECONDS)
        new.result(PATIENCE_SECONDS)
    assert issued.asked(tmp_path).of(2) == {"a": 0}


def test_only_what_a_server_asked_that_has_ended_is_lost(tmp_path: Path) -> None:
    with tiny_run(tmp_path) as run:
        run.begin(tiny_state(0), Evaluation(2.3, 0.1))
        run.issue(1, [A])
        path = run.path
    with RunDirectory.open_existing(path) as again:
        done = tiny_round(1)
        again.issue(1, [B])
        again.issue(1, [C])  # in the place of one that vanished, and so late that it was not asked any more
        added = [report for report in again.with_lost(done).reports if report not in done.reports]
    assert [(report.node, report.verdict, report.reason) for report in added] == [("a", "expired", issued.LOST)]
