"""Rule: commands, rounds, tables and figures read exactly so at every width and size."""

import math
from itertools import product
from pathlib import Path

import pytest

from server.console import words
from server.console.figures import clock, duration, loss, percent, printable
from server.summary import Row, Summary
from tests.screens import NAN, RUN, report, summary

LOCAL = {"local_accuracy_mean": 0.9313, "local_accuracy_best": 0.942, "local_accuracy_worst": 0.9102}


@pytest.mark.parametrize(
    ("address", "own", "expected"),
    [
        ("0.0.0.0:8080", None, ["python -m client --shard 0"]),
        (
            "0.0.0.0:8080",
            "192.168.1.5",
            ["python -m client --shard 0", "python -m client --shard 0 --server 192.168.1.5:8080"],
        ),
        ("127.0.0.1:8080", None, ["python -m client --shard 0"]),
        ("127.0.0.1:9000", None, ["python -m client --shard 0 --server 127.0.0.1:9000"]),
        ("[::]:9000", None, ["python -m client --shard 0 --server 127.0.0.1:9000"]),
        ("[fd00::5]:9000", "fd00::5", ["python -m client --shard 0 --server [fd00::5]:9000"] * 2),
        ("10.0.0.7:8080", "10.0.0.7", ["python -m client --shard 0 --server 10.0.0.7:8080"] * 2),
    ],
)
def test_the_commands_that_start_a_node_name_the_server_where_it_is_needed(
    address: str, own: str | None, expected: list[str]
) -> None:
    assert [command for _, command in words.node_commands(address, own)] == expected


def test_only_a_node_on_another_machine_needs_the_join_token() -> None:
    assert words.node_commands("0.0.0.0:8080", "192.168.1.5", "fedge1.a.b") == [
        ("Start a node here", "python -m client --shard 0"),
        ("On another machine", "python -m client --shard 0 --server 192.168.1.5:8080 --token fedge1.a.b"),
    ]


def test_a_server_on_loopback_cannot_be_reached_from_elsewhere() -> None:
    assert words.own_address("127.0.0.1:8080") is None
    assert words.own_address("no.such.host.invalid:8080") is None


def test_only_the_first_five_that_did_not_count_are_named() -> None:
    reports = tuple(report(f"node{index}", "expired", "late") for index in range(7))
    entries = list(words.set_aside(reports))
    assert [node for _, node, _ in entries] == ["node0", "node1", "node2", "node3", "node4", "2 more"]
    assert entries[-1] == ("and", "2 more", "see ledger.jsonl")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_round_line_never_wraps(width: int) -> None:
    figures = (0.01, 12.3456, 123.456, 1e9, NAN, math.inf)
    for total, num_nodes, seconds, figure in product((1, 10, 1000), (1, 10, 1000), (0.1, 99.9, 86_399.0), figures):
        row = Row(total, figure, 1.0, True, figure, num_nodes, 0, 0, 1.0, seconds)
        assert len(words.round_line(row, total, width)) <= width


def test_best_and_other_rounds_share_one_layout() -> None:
    rows = [Row(1, 0.1, 0.9, is_best, 0.1, 100, 0, 0, 1.0, 6.1) for is_best in (True, False)]
    best, other = (words.round_line(row, 100, 80) for row in rows)
    assert best == "Round   1/100  acc 90.00 %  loss 0.1000  train 0.1000  100 nodes   6.1 s  best"
    assert best == f"{other}  best"


def test_a_wide_terminal_gets_words_in_full() -> None:
    row = Row(3, 0.0591, 0.9812, True, 0.0712, 4, 0, 0, 0.4, 6.1)
    expected = "Round  3/10  accuracy 98.12 %  loss 0.0591  train loss 0.0712  4 nodes   6.1 s  ★ best"
    assert words.round_line(row, 10, 100) == expected


def test_a_tight_round_line_leaves_out_whole_figures() -> None:
    row = Row(1, 0.1, 0.9, True, 0.1, 100, 0, 0, 1.0, 6.1)
    assert words.round_line(row, 100, 45) == "Round   1/100  acc 90.00 %  loss 0.1000"
    assert words.round_line(row, 100, 30) == "Round   1/100  acc 90.00 %"


def test_where_nothing_is_averaged_a_round_shows_how_all_nodes_are() -> None:
    record = {"round": 3, "test_loss": 0.2, "test_accuracy": 0.942, "num_nodes": 10, "seconds": 6.1, "best": True}
    row = Row.from_metrics(record | LOCAL)
    alone = "accuracy 94.20 %  mean 93.13 %  worst 91.02 %  10 nodes"
    assert words.round_line(row, 10, 100) == f"Round  3/10  {alone}   6.1 s  ★ best"
    assert len(words.round_line(row, 100, 80)) <= 80
    lines = dict(words.outcome(Summary(RUN, (row,))))
    assert lines["Nodes"] == "in the last round mean accuracy 93.13 %, worst 91.02 %: each with a model of its own"


def test_a_long_run_shows_its_first_best_and_last_rounds() -> None:
    accuracies = [0.1, 0.2, 0.9, *[0.5] * 97]  # rounds 0..99, the best is round 2
    numbers = [cells[0] for cells in words.table(summary(*accuracies))]
    assert numbers == ["0", "…", "2", "…", *map(str, range(70, 100))]


def test_a_run_without_a_best_round_names_the_curves_only() -> None:
    unfinished = Summary(Path("my runs/trial"), (Row(0, 2.3, 0.1),))
    assert list(words.outcome(unfinished)) == [("Curves", "tensorboard --logdir 'my runs/trial'")]


def test_a_row_reads_what_metrics_jsonl_holds() -> None:
    record = {"round": 1, "test_loss": None, "test_accuracy": 0.5, "train_loss": 0.25, "num_nodes": 2, "best": True}
    row = Row.from_metrics(record)
    assert (row.number, row.accuracy, row.train_loss, row.num_nodes, row.is_best) == (1, 0.5, 0.25, 2, True)
    assert math.isnan(row.loss)
    assert math.isnan(row.seconds)


@pytest.mark.parametrize("rude", ["a\tb\r\nc", " a  b c "])
def test_printable_text_is_one_line(rude: str) -> None:
    assert printable(rude, 80) == "a b c"


def test_figures_read_well_at_every_size() -> None:
    assert [duration(seconds) for seconds in (6.149, 99.96, 3723, NAN)] == ["6.1 s", "1:40", "1:02:03", "-"]
    assert [clock(seconds) for seconds in (-3.0, 598.0)] == ["0:00", "9:58"]
    assert [loss(value) for value in (0.0591, 12.345, 1e9, NAN)] == ["0.0591", " 12.35", " 1e+09", "     -"]
    assert [percent(fraction) for fraction in (0.098, 1.0)] == [" 9.80 %", "100.0 %"]
