"""Rule: on a terminal, a run is drawn so that it fits, nothing of it is cut, and the cursor comes back."""

import re

import pytest

from common.training import Evaluation
from server.console.beginning import Beginning
from server.gathering import Waiting
from tests.screens import NAN, RUN, Screen, done, report, summary


def test_rich_shows_one_bar_over_the_nodes_of_a_round() -> None:
    screen = Screen("rich")
    console = screen.console
    console.round_started(3, 10, 4)
    for node, fraction in [("a", 0.4), ("b", 0.6), ("c", NAN), ("d", -7.0)]:
        console.progress(node, fraction)
    console.delivered("a")
    console.progress("a", 0.1)  # a late message takes nothing back
    console.close()
    assert "Round  3/10" in screen.text
    assert "40 %  1 of 4 delivered" in screen.text


def test_rich_says_what_comes_after_the_last_delivery() -> None:
    screen = Screen("rich")
    screen.console.round_started(1, 10, 1)
    screen.console.delivered("a")
    screen.console.close()
    assert "100 %  averaging, evaluating" in screen.text


def test_rich_waits_in_one_line_of_a_narrow_terminal() -> None:
    screen = Screen("rich", width=60)
    with screen.console as console:
        console.waiting(Waiting(1, 3, 1, 598.0), 10)
        console.waiting(Waiting(2, 3, 2, 597.0), 10)
    assert "2 of 3 nodes; 2 of 10 shards: 20 % of the data; giving up…" in screen.text
    assert all(len(line) <= 60 for line in screen.text.replace("\r", "\n").splitlines())


def test_rich_gives_the_cursor_back() -> None:
    screen = Screen("rich")
    screen.console.waiting(Waiting(1, 3, 1, 598.0), 10)
    screen.console.failed("stop")
    assert screen.out.getvalue().rindex("\x1b[?25h") > screen.out.getvalue().rindex("\x1b[?25l")
    screen.console.round_started(1, 10, 2)  # too late to draw
    assert screen.out.getvalue().count("\x1b[?25l") == 1


def test_rich_tells_a_whole_run() -> None:
    screen = Screen("rich")
    console = screen.console
    console.started(Beginning(RUN, "127.0.0.1:8080", 10, "lenet5", "link"))
    console.joined("attic", 3, "192.168.1.7:51234")
    console.notice("the disk is almost full")
    console.left("attic", "silent for 10 s")
    late = done(report("attic"), report("cellar", "expired", "no update within 600 s"))
    console.round_done(late, 1, Evaluation(0.1302, 0.9601), True, 10)
    console.finished(summary(0.098, 0.9812, 0.9801))
    assert screen.text.splitlines()[:8] == [
        "Run trial: lenet5, 10 rounds, serving on 127.0.0.1:8080",
        "  Start a node here:  python -m client --shard 0",
        "+ attic joined with shard 3 (192.168.1.7:51234)",
        "Warning: the disk is almost full",
        "- attic left: silent for 10 s",
        "",
        "Round  1/10  accuracy 96.01 %  loss 0.1302  train 0.0712  1 node    6.1 s  best",
        "  expired  cellar  no update within 600 s",
    ]
    assert "     1    98.12 %   0.0591       0.0712       2           1   20 %   6.1 s" in screen.text
    assert screen.text.splitlines()[-3:] == [
        " Best    accuracy 98.12 % in round 1 (last round: 98.01 %)",
        " Model   runs/trial/best.pt",
        " Curves  tensorboard --logdir runs/trial",
    ]


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (200, ["Round", "Accuracy", "Loss", "Train loss", "Nodes", "Set aside", "Data", "Time"]),
        (80, ["Round", "Accuracy", "Loss", "Train loss", "Nodes", "Set aside", "Data", "Time"]),
        (60, ["Round", "Accuracy", "Loss", "Train loss", "Nodes", "Time"]),
        (40, ["Round", "Accuracy", "Loss", "Nodes"]),
        (20, ["Round", "Accuracy"]),
    ],
)
def test_the_last_table_shows_whole_columns_or_none(width: int, columns: list[str]) -> None:
    screen = Screen("rich", width)
    screen.console.finished(summary(0.098, 0.9812, 0.9801))
    header = next(line for line in screen.text.splitlines() if "Round" in line)
    assert re.split(" {2,}", header.strip()) == columns
    assert "…" not in screen.text
    assert "98.12 %" in screen.text
