"""Turn what a command drew in a terminal into a picture for the documents.

    script -q -c "stty cols 80; python -m server --rounds 10" typescript
    python scripts/terminal_picture.py typescript docs/images/server.svg --title "python -m server --rounds 10"

Lines that were drawn over while the command ran are gone in the picture, as they are on the screen.
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

# ECMA-48: colours stay, "up" and "erase line" are obeyed, all other control sequences say nothing in a picture.
_TOKEN = re.compile(
    r"\x1b\[(?P<count>\d*)A|(?P<erase>\x1b\[2?K)|(?P<colour>\x1b\[[\d;]*m)|\x1b\[[?\d;]*[A-Za-z]|(?P<text>.)", re.S
)
_FRAME = re.compile(r"^Script (started|done) on .*\n?", re.M)


def screen(typescript: str) -> list[str]:
    """The lines a terminal shows after ``typescript`` (as util-linux ``script`` records it), colours included."""
    lines, row, is_overwritten = [""], 0, False
    for token in _TOKEN.finditer(_FRAME.sub("", typescript)):
        text = token["text"]
        if token["count"] is not None:
            row = max(0, row - int(token["count"] or 1))
        elif token["erase"]:
            lines[row] = ""
        elif text == "\r":
            is_overwritten = True
        elif text == "\n":
            row, is_overwritten = row + 1, False
            lines += [""] * (row + 1 - len(lines))
        elif text or token["colour"]:
            lines[row] = ("" if is_overwritten else lines[row]) + token[0]
            is_overwritten = False
    return "\n".join(lines).rstrip().split("\n")


def main() -> None:
    """Read a typescript, write an SVG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("typescript", type=Path)
    parser.add_argument("picture", type=Path, help="the .svg file to write")
    parser.add_argument("--title", default="", help="text of the window's title bar")
    parser.add_argument("--width", type=int, default=80, help="columns of the terminal (default 80)")
    arguments = parser.parse_args()
    recorder = Console(file=io.StringIO(), width=arguments.width, record=True, force_terminal=True)
    # As bytes: reading text would turn a lone carriage return into the end of a line.
    typescript = arguments.typescript.read_bytes().decode("utf-8", "replace")
    for line in screen(typescript):
        recorder.print(Text.from_ansi(line), no_wrap=True, overflow="crop")
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    picture = recorder.export_svg(title=arguments.title)
    # rich lets the picture load its font from the web; the reader's own monospace font serves as well.
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    arguments.picture.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
