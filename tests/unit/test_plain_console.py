"""Rule: in a pipe, each event of a run is one plain line, and only what is news has one."""

import pytest

from common.training import Evaluation
from server.console.beginning import Beginning
from server.gathering import Waiting
from tests.screens import NAN, RUN, Screen, done, report, summary


def test_plain_start() -> None:
    screen = Screen("plain")
    screen.console.started(Beginning(RUN, "127.0.0.1:8080", 10, "lenet5", "link"))
    assert screen.lines == [
        "Run trial: lenet5, 10 rounds, serving on 127.0.0.1:8080",
        "Start a node here: python -m client --shard 0",
    ]


@pytest.mark.parametrize(
    ("engine", "first_round", "baseline", "expected"),
    [
        ("link", 1, "none", "Run trial: lenet5, 10 rounds, simulated in this process"),
        ("ray", 4, "none", "Run trial: lenet5, resumed at round 4 of 10, engine ray"),
        ("link", 1, "local-only", "Run trial: lenet5, 10 rounds, simulated in this process, every node for itself"),
        ("link", 1, "centralized", "Run trial: lenet5, 10 rounds, centralized on all training images"),
    ],
)
def test_plain_start_without_a_link(engine: str, first_round: int, baseline: str, expected: str) -> None:
    screen = Screen("plain")
    screen.console.started(Beginning(RUN, None, 10, "lenet5", engine, first_round, baseline))
    assert screen.lines == [expected]


def test_plain_waiting_speaks_only_when_the_numbers_change() -> None:
    screen = Screen("plain")
    for num_nodes, seconds_left in [(1, 598.0), (1, 597.0), (2, 590.2)]:
        screen.console.waiting(Waiting(num_nodes, 3, num_nodes, seconds_left), 10)
    assert screen.lines == [
        "Waiting: 1 of 3 nodes; 1 of 10 shards: 10 % of the data; giving up in 9:58",
        "Waiting: 2 of 3 nodes; 2 of 10 shards: 20 % of the data; giving up in 9:50",
    ]


def test_plain_nodes_come_and_go_and_notices_stand_out() -> None:
    screen = Screen("plain")
    screen.console.joined("attic", 3, "192.168.1.7:51234")
    screen.console.joined("cellar", -1, "192.168.1.8:51234")
    screen.console.left("attic", "silent for 10 s")
    screen.console.notice("the disk is\nalmost full")
    assert screen.lines == [
        "+ attic joined with shard 3 (192.168.1.7:51234)",
        "+ cellar joined with its own data (192.168.1.8:51234)",
        "- attic left: silent for 10 s",
        "Warning: the disk is almost full",
    ]


def test_plain_rounds_align_and_say_what_did_not_count() -> None:
    screen = Screen("plain")
    console = screen.console
    console.round_started(1, 10, 2)
    console.progress("attic", 0.5)
    console.delivered("attic")
    console.round_done(None, 0, Evaluation(2.3041, 0.098), True, 10)
    console.round_done(done(report("attic"), report("cellar")), 1, Evaluation(0.1302, 0.9601), True, 10)
    late = done(report("attic"), report("cellar", "expired", "no update within 600 s"), seconds=112.4)
    console.round_done(late, 2, Evaluation(0.1402, 0.9559), False, 10)
    nothing = done(report("attic", "rejected", "fc1.bias is not finite"), train_loss=NAN)
    console.round_done(nothing, 10, Evaluation(0.1402, 0.9559), False, 10)
    assert screen.lines == [
        "Round  0/10  accuracy  9.80 %  loss 2.3041  before training",
        "Round  1/10  accuracy 96.01 %  loss 0.1302  train 0.0712  2 nodes   6.1 s  best",
        "Round  2/10  accuracy 95.59 %  loss 0.1402  train 0.0712  1 node     1:52",
        "  expired cellar: no update within 600 s",
        "Round 10/10  accuracy 95.59 %  loss 0.1402  no usable update: model kept",
        "  rejected attic: fc1.bias is not finite",
    ]


def test_plain_end_is_a_table_the_best_round_and_where_things_lie() -> None:
    screen = Screen("plain")
    screen.console.finished(summary(0.098, 0.9812, 0.9801))
    screen.console.left("attic", "the run is done")
    assert screen.lines == [
        "",
        "Round  Accuracy    Loss  Train loss  Nodes  Set aside  Data   Time",
        "    0    9.80 %  2.3041           -      -          -     -      -",
        "    1   98.12 %  0.0591      0.0712      2          1  20 %  6.1 s",
        "    2   98.01 %  0.0591      0.0712      2          1  20 %  6.1 s",
        "Best:   accuracy 98.12 % in round 1 (last round: 98.01 %)",
        "Model:  runs/trial/best.pt",
        "Curves: tensorboard --logdir runs/trial",
    ]
