"""Rule: the console that fits is taken, and each says the same, whatever nodes call themselves."""

import io
import math
import re
import threading

import pytest

from server.console import make_console
from server.gathering import Waiting
from server.summary import Row, Summary
from tests.screens import RUN, Screen


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_who_is_there_and_does_not_do_is_said(kind: str) -> None:
    screen = Screen(kind)
    with screen.console as console:
        console.waiting(Waiting(0, 1, 0, 590.0, num_busy=2, num_aside=1), 10)
    assert "0 of 1 node, 2 busy with a former task, 1 set aside; 0 of 10 shards" in screen.text


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


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_what_nodes_send_cannot_garble_the_screen(kind: str) -> None:
    screen = Screen(kind)
    screen.console.joined("[red]x[/red]\x1b[31m\u202e\n", 0, "here")
    screen.console.left("y" * 500, "z" * 5000)
    assert "+ [red]x[/red]?[31m? joined with shard 0 (here)" in screen.text
    assert "y" * 62 + "… left" in screen.text
    assert len("".join(screen.text.splitlines()[1:])) < 300


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
