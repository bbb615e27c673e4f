"""What the person at the server's machine sees of a run."""

import os
import sys
from typing import TextIO

from server.console.console import Console
from server.console.output import Output

__all__ = ["Console", "make_console"]


def make_console(quiet: bool, json: bool, stream: TextIO | None = None, errors: TextIO | None = None) -> Console:
    """The console that fits: JSON lines if asked for, a live one on a terminal unless ``quiet``, plain lines otherwise.

    Args:
        quiet: no colours, no drawing.
        json: one object a line on ``stream``.
        stream: standard output unless given.
        errors: standard error unless given.
    """
    output = Output(sys.stdout if stream is None else stream)
    arguments = (output, Output(sys.stderr if errors is None else errors))
    # Imported here, so that a console loads only what it draws with.
    if json:
        from server.console.json_lines import JsonConsole

        return JsonConsole(*arguments)
    if quiet or not output.isatty() or os.environ.get("TERM", "") in {"dumb", "unknown"}:
        from server.console.plain import PlainConsole

        return PlainConsole(*arguments)
    from server.console.terminal import RichConsole

    return RichConsole(*arguments)
