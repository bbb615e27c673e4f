"""Rule: a stream that fails, is busy or was never open costs lines, and nothing else."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from server.console.output import Output
from server.console.plain import PlainConsole


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
