"""Rule: when a disk is full, read-only or broken, a run goes on or stops with the last good state, and says so.

A seeded sample of what ``make faults`` plays in full.
"""

import pytest

from tests.faults.crash_schedules import sample
from tests.faults.crash_trials import Stage
from tests.faults.disk_trials import disk_faults, play_disk

NUM_SAMPLES = {
    "server: disk full": 1,
    "server: disk read-only": 1,
    "server: one call fails": 1,
    "node: disk full": 1,
}


@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize(("family", "number"), [(f, n) for f, count in NUM_SAMPLES.items() for n in range(count)])
def test_a_run_whose_disk_fails_comes_to_the_same_models(stage: Stage, family: str, number: int) -> None:
    disk = sample(disk_faults(stage)[family], lambda found: found.name, NUM_SAMPLES[family])[number]
    outcome = play_disk(stage, disk, f"{family}-{number}".replace(" ", "-").replace(":", ""))
    assert not outcome.problems, outcome
    assert outcome.identical, outcome
