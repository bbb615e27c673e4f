"""Rule: what workers are forked from hears neither Ctrl-C nor SIGTERM, from its first moment on."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BEGIN = """
from multiprocessing import forkserver
from pathlib import Path
from server import fork_server

fork_server.begin()
process = Path("/proc", str(forkserver._forkserver._forkserver_pid))
while "forkserver" not in (process / "cmdline").read_text():
    pass  # between fork and exec it is still a copy of this process
print(next(line for line in (process / "status").read_text().splitlines() if line.startswith("SigBlk")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned")
def test_signals_are_held_back_from_its_beginning() -> None:
    said = subprocess.run([sys.executable, "-c", BEGIN], capture_output=True, text=True, check=True, cwd=ROOT)
    [line] = said.stdout.splitlines()
    blocked = int(line.split()[1], 16)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert blocked >> (number - 1) & 1
