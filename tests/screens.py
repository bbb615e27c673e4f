"""A console together with what it wrote, and small runs to show on it."""

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as Terminal

from server.console import Console, make_console
from server.console.output import Output
from server.console.terminal import RichConsole
from server.report import NodeReport, Round, Verdict
from server.summary import Row, Summary

RUN = Path("runs/trial")
NAN = math.nan


def report(node: str, verdict: Verdict = "accepted", reason: str = "") -> NodeReport:
    return NodeReport("t", 1, node, 0, 6000, None, verdict, reason, 0.07, 5.0, 6.0, 250_000, 250_000, 1)


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
