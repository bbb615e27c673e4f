"""Rule: a picture shows what a terminal shows in the end: lines drawn over are gone, colours stay."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_recorded_run_becomes_a_picture_of_its_last_screen(tmp_path: Path) -> None:
    (tmp_path / "typescript").write_bytes(
        b'Script started on 2026-11-21 [COMMAND="x"]\n'
        b"\x1b[1mRun\x1b[0m trial\r\n"
        b"\x1b[?25lworking_1\r\x1b[2Kworking_2\r\n"
        b"\r\x1b[1A\x1b[2Kfinished\r\n\x1b[?25h"
        b"over\rwritten\r\n"
        b"Script done on 2026-11-21\n"
    )
    command = [sys.executable, "scripts/terminal_picture.py", str(tmp_path / "typescript")]
    subprocess.run([*command, str(tmp_path / "new" / "run.svg"), "--title", "a run"], cwd=ROOT, check=True)
    picture = (tmp_path / "new" / "run.svg").read_text(encoding="utf-8")
    assert all(word in picture for word in ("Run", "trial", "finished", "written", "a&#160;run", "font-weight: bold"))
    assert not any(word in picture for word in ("working", "over<", "Script"))
