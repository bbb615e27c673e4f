"""Rule: the phases of a round add up to it, and what nobody saw is not made up."""

import math
from dataclasses import replace

from server.grids import Answer, Seen
from server.phases import split, totals
from tests.scripted_grid import NODES, ScriptedGrid
from tests.unit.test_rounds import honest, one_round

QUICK = Answer(1, None, "", 2.0, 0, 0, Seen(taken_at=100.25, done_at=101.0, ended_at=101.5))
SLOW = Answer(2, None, "", 4.0, 0, 0, Seen(taken_at=100.5, done_at=103.0, ended_at=104.0))
LATE = Answer(3, None, "no update within 6 s", 6.0, 0, 0, Seen(ended_at=106.0))
FITS = {1: 0.5, 2: 2.0}


def test_the_last_update_is_the_path_and_nodes_in_vain_are_waited_for() -> None:
    phases = split(100.0, 106.5, 107.0, [QUICK, SLOW, LATE], FITS)
    assert phases.broadcast == 0.5  # 100 to 100.5: the slow node's
    assert (phases.train, phases.train_median) == (2.0, 1.25)
    assert phases.upload == 1.0  # 103 to 104
    assert phases.wait == 2.5  # 100 to 106, less 0.5 + 2 + 1
    assert phases.average == 1.0  # 106 to 107: that updates are read is part of it


def test_what_an_engine_cannot_see_is_waited_for() -> None:
    blind = [replace(answer, seen=Seen()) for answer in (QUICK, SLOW)]
    phases = split(100.0, 104.0, 104.25, blind, FITS)
    assert math.isnan(phases.broadcast)
    assert math.isnan(phases.upload)
    assert (phases.train, phases.wait, phases.average) == (2.0, 2.0, 0.25)


def test_a_round_in_vain_is_all_waiting() -> None:
    phases = split(100.0, 106.0, 106.0, [LATE], {})
    assert (phases.train, phases.wait, phases.average) == (0.0, 6.0, 0.0)


def test_a_node_that_claims_more_time_than_there_was_makes_no_phase_negative() -> None:
    assert split(100.0, 104.0, 104.0, [SLOW], {2: 1000.0}).wait == 0.0


def test_a_round_without_sight_of_its_nodes_is_training_waiting_and_averaging() -> None:
    done = one_round(ScriptedGrid({NODES[0]: honest(1.0, 0, 100)}))
    assert done.phases.train == done.fit_seconds == 0.25  # what the node claims; the script takes no time
    assert 0 <= done.phases.average <= done.seconds
    assert math.isnan(done.phases.broadcast)


def test_totals_leave_out_what_nobody_knows() -> None:
    first = {"train": 1.0, "upload": math.nan, "write": 0.25}
    second = {"train": 2.0, "upload": math.nan, "write": 3.25}
    assert list(totals([first, second, {}]).items()) == [("write", 3.5), ("train", 3.0)]
