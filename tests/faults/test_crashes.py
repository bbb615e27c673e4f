"""Rule: whatever a server or a node is killed at, the same command goes on, to the same models bit for bit.

A seeded sample of what ``make faults`` plays in full.
"""

import pytest

from tests.faults.crash_schedules import crashes, sample
from tests.faults.crash_trials import Crash, Stage, play
from tests.faults.federation import NODES
from tests.faults.injector import Fault
from tests.faults.returning import after_the_server_was_away, at_work

NUM_SAMPLES = {
    "server killed at every point": 5,
    "server killed again, at every point of its resume": 2,
    "node killed at every point": 3,
}


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize(("family", "number"), [(f, n) for f, count in NUM_SAMPLES.items() for n in range(count)])
def test_a_killed_run_comes_to_the_same_models(stage: Stage, family: str, number: int) -> None:
    crash = sample(crashes(stage)[family], lambda found: found.name, NUM_SAMPLES[family])[number]
    assert_explained(stage, crash, f"{family}-{number}".replace(" ", "-"))


@pytest.mark.xdist_group("faults")
def test_nodes_hear_that_the_run_is_done_from_a_server_that_was_killed_after_its_last_round(stage: Stage) -> None:
    crash = Crash("server", (Fault("server/storage/durable.py:replace_keeping replace last.pt after", 4),))
    assert_explained(stage, crash, "after-the-last-round")
    for node in NODES:
        assert "the server says: the run is done" in (stage.folder / "after-the-last-round" / f"{node}.txt").read_text()


@pytest.mark.xdist_group("faults")
def test_all_nodes_are_back_when_their_server_is(stage: Stage) -> None:
    with at_work(stage.nursery, stage.folder / "returning", stage.cache, num_nodes=5) as (federation, nodes):
        assert len(after_the_server_was_away(federation, nodes, away_seconds=0.0)) == 5


@pytest.mark.xdist_group("faults")
def test_a_run_passes_at_least_200_points(stage: Stage) -> None:
    points = {fault.point for family in crashes(stage).values() for crash in family for fault in crash.faults}
    assert len(points) >= 200, len(points)


def assert_explained(stage: Stage, crash: Crash, name: str) -> None:
    outcome = play(stage, crash, name)
    assert not outcome.problems, outcome
    assert (outcome.num_faults, outcome.identical) == (len(crash.faults), True), outcome
