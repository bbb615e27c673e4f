"""Rule: each event of a run reads exactly so, on a terminal, in a pipe and as JSON, whatever nodes call themselves."""

import io
import json
import math
import re
import subprocess
import sys
import threading
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as Terminal

from common.training import Evaluation
from server.console import Console, make_console, words
from server.console.beginning import Beginning
from server.console.figures import clock, duration, loss, percent, printable
from server.console.output import Output
from server.console.plain import PlainConsole
from server.console.terminal import RichConsole
from server.gathering import Waiting
from server.report import NodeReport, Round, Verdict
from server.summary import Row, Summary

RUN = Path("runs/trial")
NAN = math.nan


def report(node: str, verdict: Verdict = "accepted", reason: str = "") -> NodeReport:
    return NodeReport("t", 1, node, 0, 6000, "", verdict, reason, 0.07, 5.0, 6.0, 250_000, 250_000, 1)


def done(*reports: NodeReport, train_loss: float = 0.0712, seconds: float = 6.1) -> Round:
    averaged = any(one.verdict == "accepted" for one in reports)
    return Round(1, {}, reports, averaged, train_loss, 0.2, seconds, 5.0, seconds - 5.0, 500_000, 500_000)


def summary(*accuracies: float) -> Summary:
    rows = [Row(0, 2.3041, accuracies[0])]
    for number, accuracy in enumerate(accuracies[1:], start=1):
        is_best = accuracy > max(accuracies[:number])
        rows.append(Row(number, 0.0591, accuracy, is_best, 0.0712, 2, 0, 1, 0.2, 6.1))
    return Summary(RUN, tuple(rows))


class Screen:
    """A console together with what it wrote."""

    def __init__(self, kind: str, width: int = 80) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.console: Console
        if kind == "rich":
            output = Output(self.out)
            terminal = Terminal(file=output, force_terminal=True, width=width, highlight=False, _environ={})  # type: ignore[arg-type]  # a stream, though no IO[str]
            self.console = RichConsole(output, Output(self.err), terminal)
        else:
            self.console = make_console(quiet=True, json=kind == "json", stream=self.out, errors=self.err)

    @property
    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line, parse_constant=pytest.fail) for line in self.lines]

    @property
    def text(self) -> str:
        """Lines as a terminal shows them, colours and movements left out."""
        return re.sub(r"\x1b\[[?\d;]*[A-Za-z]| +$", "", self.out.getvalue(), flags=re.MULTILINE)


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


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_who_is_there_and_does_not_do_is_said(kind: str) -> None:
    screen = Screen(kind)
    with screen.console as console:
        console.waiting(Waiting(0, 1, 0, 590.0, num_busy=2, num_aside=1), 10)
    assert "0 of 1 node, 2 busy with a former task, 1 set aside; 0 of 10 shards" in screen.text


def test_json_counts_who_is_there_and_does_not_do() -> None:
    screen = Screen("json")
    screen.console.waiting(Waiting(0, 1, 0, 590.0, num_busy=2), 10)
    screen.console.waiting(Waiting(0, 1, 0, 589.0, num_busy=0, num_aside=2), 10)
    assert [(each["num_busy"], each["num_aside"]) for each in screen.objects] == [(2, 0), (0, 2)]


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


LOCAL = {"local_accuracy_mean": 0.9313, "local_accuracy_best": 0.942, "local_accuracy_worst": 0.9102}


def test_where_nothing_is_averaged_a_round_shows_how_all_nodes_are() -> None:
    record = {"round": 3, "test_loss": 0.2, "test_accuracy": 0.942, "num_nodes": 10, "seconds": 6.1, "best": True}
    row = Row.from_metrics(record | LOCAL)
    alone = "accuracy 94.20 %  mean 93.13 %  worst 91.02 %  10 nodes"
    assert words.round_line(row, 10, 100) == f"Round  3/10  {alone}   6.1 s  ★ best"
    assert len(words.round_line(row, 100, 80)) <= 80
    lines = dict(words.outcome(Summary(RUN, (row,))))
    assert lines["Nodes"] == "in the last round mean accuracy 93.13 %, worst 91.02 %: each with a model of its own"


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


def test_the_end_names_where_the_rounds_went_the_longest_phase_first() -> None:
    first = {"broadcast": 0.5, "train": 30.0, "evaluate": 4.0, "upload": math.nan}
    second = {"broadcast": 0.1, "train": 30.0, "evaluate": 5.0, "upload": 0.4}
    rows = tuple(Row(number, 0.1, 0.9, True, phases=phases) for number, phases in enumerate((first, second), 1))
    text = "70.0 s in rounds, most in training 86 %, evaluation 13 %"  # 60, 9, 0.6 and 0.4 of 70 s
    plain, terminal, machines = Screen("plain"), Screen("rich"), Screen("json")
    for screen in (plain, terminal, machines):
        screen.console.finished(Summary(RUN, rows))
    assert f"Time:   {text}" in plain.lines
    assert text in re.sub(r"\x1b\[[0-9;]*m", "", terminal.out.getvalue())
    phases = machines.objects[-1]["phases"]
    assert list(phases) == ["train", "evaluate", "broadcast", "upload"]
    assert (phases["train"], phases["evaluate"], phases["upload"]) == (60.0, 9.0, 0.4)


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


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_errors_go_to_standard_error(kind: str) -> None:
    screen = Screen(kind)
    screen.console.waiting(Waiting(0, 2, 0, 60), 10)
    screen.console.failed("port 8080 is taken\nchoose another with --port")
    screen.console.interrupted("saved after round 3")
    assert screen.err.getvalue().splitlines() == [
        "Error: port 8080 is taken",
        "choose another with --port",
        "Interrupted: saved after round 3",
    ]
    assert "taken" not in screen.out.getvalue()


def test_json_says_every_event() -> None:
    screen = Screen("json")
    console = screen.console
    console.started(Beginning(RUN, "0.0.0.0:8080", 2, "lenet5", "link"))
    console.waiting(Waiting(1, 2, 1, 60.0), 10)
    console.waiting(Waiting(1, 2, 1, 59.0), 10)
    console.joined("attic", 3, "192.168.1.7:51234")
    console.round_done(None, 0, Evaluation(2.3, 0.1), True, 2)
    console.round_started(1, 2, 2)
    console.progress("attic", 0.5)
    console.delivered("attic")
    console.left("cellar", "silent")
    console.notice("careful")
    nothing = done(report("cellar", "rejected", "not finite"), train_loss=NAN)
    console.round_done(nothing, 1, Evaluation(NAN, 0.1), False, 2)
    console.finished(summary(0.1, 0.9))
    assert " ".join(one["event"] for one in screen.objects) == (
        "started waiting joined round_done round_started progress delivered left notice round_done finished"
    )
    assert all(one["format"] == 1 for one in screen.objects)
    assert screen.objects[0] == {
        "event": "started",
        "format": 1,
        "run_dir": "runs/trial",
        "address": "0.0.0.0:8080",
        "rounds": 2,
        "first_round": 1,
        "model": "lenet5",
        "engine": "link",
        "baseline": "none",
        "token": "",
    }
    last_round = screen.objects[9]
    assert (last_round["test_loss"], last_round["train_loss"], last_round["averaged"]) == (None, None, False)
    assert last_round["set_aside"] == [{"node": "cellar", "verdict": "rejected", "reason": "not finite"}]
    assert screen.objects[10] == {
        "event": "finished",
        "format": 1,
        "run_dir": "runs/trial",
        "rounds": 1,
        "best_path": "runs/trial/best.pt",
        "best_round": 1,
        "best_accuracy": 0.9,
        "last_accuracy": 0.9,
        "phases": {},
    }


@pytest.mark.parametrize("ending", ["failed", "interrupted"])
def test_json_tells_machines_and_people_how_it_ended(ending: str) -> None:
    screen = Screen("json")
    getattr(screen.console, ending)("too few nodes")
    assert screen.objects == [{"event": ending, "format": 1, "text": "too few nodes"}]
    assert screen.err.getvalue().endswith(": too few nodes\n")


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


def test_a_tight_round_line_leaves_out_whole_figures() -> None:
    row = Row(1, 0.1, 0.9, True, 0.1, 100, 0, 0, 1.0, 6.1)
    assert words.round_line(row, 100, 45) == "Round   1/100  acc 90.00 %  loss 0.1000"
    assert words.round_line(row, 100, 30) == "Round   1/100  acc 90.00 %"


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


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_what_nodes_send_cannot_garble_the_screen(kind: str) -> None:
    screen = Screen(kind)
    screen.console.joined("[red]x[/red]\x1b[31m\u202e\n", 0, "here")
    screen.console.left("y" * 500, "z" * 5000)
    assert "+ [red]x[/red]?[31m? joined with shard 0 (here)" in screen.text
    assert "y" * 62 + "… left" in screen.text
    assert len("".join(screen.text.splitlines()[1:])) < 300


@pytest.mark.parametrize("rude", ["a\tb\r\nc", " a  b c "])
def test_printable_text_is_one_line(rude: str) -> None:
    assert printable(rude, 80) == "a b c"


def test_figures_read_well_at_every_size() -> None:
    assert [duration(seconds) for seconds in (6.149, 99.96, 3723, NAN)] == ["6.1 s", "1:40", "1:02:03", "-"]
    assert [clock(seconds) for seconds in (-3.0, 598.0)] == ["0:00", "9:58"]
    assert [loss(value) for value in (0.0591, 12.345, 1e9, NAN)] == ["0.0591", " 12.35", " 1e+09", "     -"]
    assert [percent(fraction) for fraction in (0.098, 1.0)] == [" 9.80 %", "100.0 %"]


def test_an_ascii_terminal_gets_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Output(stream).line("★ best … π")
    assert raw.getvalue() == b"* best ... ?\n"


def test_a_failing_stream_is_left_alone_from_then_on() -> None:
    class Gone(io.StringIO):
        attempts = 0

        def write(self, _: str) -> int:
            self.attempts += 1
            raise BrokenPipeError

    stream = Gone()
    console = PlainConsole(Output(stream), Output(io.StringIO()))
    console.notice("one")
    console.notice("two")
    assert stream.attempts == 1


def test_a_stream_that_was_never_open_is_no_failure() -> None:
    output = Output(None)
    output.line("one")
    assert not output.isatty()
    assert not output.is_open


def test_a_write_in_the_middle_of_a_write_loses_its_line_only() -> None:
    class Busy(io.StringIO):
        is_busy = True

        def write(self, text: str) -> int:
            if self.is_busy:
                raise RuntimeError("reentrant call")
            return super().write(text)

    stream = Busy()
    output = Output(stream)
    output.write("lost\n")
    stream.is_busy = False
    output.line("kept")
    assert stream.getvalue() == "kept\n"


@pytest.mark.parametrize("flags", ["quiet=True, json=False", "quiet=False, json=True"])
def test_a_reader_that_leaves_does_not_end_the_run(flags: str) -> None:
    program = (
        "import sys; from server.console import make_console\n"
        f"console = make_console({flags})\n"
        "sys.stdin.readline()\n"  # the reader has closed its end by now
        "for _ in range(1000): console.notice('x' * 400)\n"
        "print('alive', file=sys.stderr)"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", program], cwd=root, stdin=-1, stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate("go\n", timeout=60)
    assert (errors, process.returncode) == ("alive\n", 0)


@pytest.mark.parametrize("kind", ["plain", "json", "rich"])
def test_events_of_many_threads_stay_whole_lines(kind: str) -> None:
    screen = Screen(kind, width=200)

    def speak(name: str) -> None:
        for _ in range(50):
            screen.console.joined(name, 0, "here")
            screen.console.progress(name, 0.5)

    threads = [threading.Thread(target=speak, args=(f"node{index}",)) for index in range(4)]
    screen.console.round_started(1, 10, 4)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    screen.console.close()
    assert sum("joined" in line for line in screen.lines) == 200


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "term", "quiet", "expected"),
    [
        (Tty(), "xterm", False, "RichConsole"),
        (Tty(), "xterm", True, "PlainConsole"),
        (Tty(), "dumb", False, "PlainConsole"),
        (io.StringIO(), "xterm", False, "PlainConsole"),
    ],
)
def test_drawing_is_for_terminals(
    stream: io.StringIO, term: str, quiet: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    assert type(make_console(quiet, json=False, stream=stream)).__name__ == expected


def test_no_color_means_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Tty()
    make_console(quiet=False, json=False, stream=stream).joined("attic", 0, "here")
    assert "\x1b[1;32m" not in stream.getvalue()
    assert "attic joined" in stream.getvalue()
