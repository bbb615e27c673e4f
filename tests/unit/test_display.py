"""Rule: what a server says reaches the terminal beside a node on one line, and never as a command to it."""

import io
import sys

import pytest

from client.display import Display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_that_stays_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Display().tell("the server says: a\nb\x1b[2J\u202ec")
    time, said = capsys.readouterr().out.split(" ", 1)
    assert len(time) == len("09:15:00")
    assert said == "the server says: a b?[2J?c\n"


def test_a_passing_line_commands_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    Display().show("round \x1b[2J\x07\n1: training, 50%")
    assert terminal.getvalue() == "\r\033[Kround ?[2J? 1: training, 50%"
