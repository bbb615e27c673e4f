"""Processes of a benchmark: one thread each unless told otherwise, own state folder, ended with their context."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Process = subprocess.Popen[str]


def environment(state: Path, **more: str) -> dict[str, str]:
    """What every process of a benchmark is started with."""
    own = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "FEDGE_STATE_DIR": str(state)}
    own |= {"FEDGE_DATA_DIR": str(ROOT / "data")}  # a Flower bundle holds no data
    return os.environ | own | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"} | more


@contextmanager
def started(
    state: Path, module: str, *arguments: object, threads: int = 1, more: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """``python -m module`` with its standard output in a pipe and its errors in a file of the state folder.

    ``threads`` is how many may compute at once, 0 = as many as the libraries choose.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    own = environment(state, **(more or {}))
    if threads:
        own["OMP_NUM_THREADS"] = str(threads)
    else:
        del own["OMP_NUM_THREADS"]
    with (state / f"{module}.err").open("a") as errors:
        process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield process
        finally:
            end(process)


def end(process: Process) -> None:
    """Stop it, kindly at first."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def first_line(process: Process) -> str:
    """What it says first."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, f"{process.args!r} said nothing"
    return line


def finish(process: Process) -> list[str]:
    """All that it still says, once it has ended well."""
    output, _ = process.communicate()
    assert process.returncode == 0, f"{process.args!r} ended with {process.returncode}"
    return output.splitlines()
