"""Runs every tutorial's recipe, centralized and federated, and writes the measured tables into docs/recipes.md.

Every run is a process of its own with one thread. What is finished is skipped and what was stopped goes on where it
stopped, so this may be stopped at any time.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.recipe_jobs import RECIPES, Job, jobs
from benchmarks.recipe_tables import write_tables
from common.command_line import Parser, run_command
from common.errors import RunDirectoryError, UsageError
from common.settings import ENVIRONMENT_PREFIX, OTHER_ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "recipes.md"
PROG = "python -m benchmarks.recipes"
EXAMPLES = """\
  make recipes                                      all runs, one after another; a few hours
  make recipes JOBS=2                               two at once
  python -m benchmarks.recipes --only edge-tutorial
  python -m benchmarks.recipes --table              write the tables anew, run nothing"""
DESCRIPTION = f"{__doc__}\nIt exits with 1 if a run failed, with 130 if it was stopped."


class Runs:
    """The runs at work, which a signal stops after their round."""

    def __init__(self, out: Path) -> None:
        self.stopped = False
        self._out = out
        self._processes: set[subprocess.Popen[bytes]] = set()

    def stop(self, *_: object) -> None:
        """Start none any more, and let those at work finish their round; once more: stop them now."""
        self.stopped = True
        for process in list(self._processes):
            process.send_signal(signal.SIGTERM)

    def run(self, job: Job) -> bool:
        """Run ``job`` to its end; whether it may be counted as done, now or later."""
        if self.stopped:
            return True
        log = self._out / f"{job.name}.log"
        with log.open("ab") as sink:
            # In a process group of its own: the terminal's Ctrl-C is ours to pass on, once.
            process = subprocess.Popen(
                job.command(self._out), cwd=ROOT, env=_environment(), stdout=sink, stderr=sink, process_group=0
            )
            self._processes.add(process)
            if self.stopped:
                process.send_signal(signal.SIGTERM)
            code = process.wait()
            self._processes.discard(process)
        done = job.finished(self._out)
        print(f"{job.name}: {_end(job, self._out, log)}", flush=True)
        return done or (self.stopped and code == 130)


def main() -> int:
    """Run what is missing, write the tables; returns the exit code."""
    arguments = _parser().parse_args()
    out = arguments.out.expanduser().resolve()
    cores = os.cpu_count() or 1
    if not 1 <= arguments.jobs <= cores:
        raise UsageError(f"--jobs must be 1 to {cores}, the cores of this machine, got {arguments.jobs}")
    code = 0 if arguments.table else _run(jobs(arguments.only or RECIPES), out, arguments.jobs)
    write_tables(DOCUMENT, out)
    print(f"the tables are in {DOCUMENT}")
    return code


def _run(wanted: Sequence[Job], out: Path, at_once: int) -> int:
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", blocking=False):
            for job in wanted:
                job.check(out)
            missing = [job for job in wanted if not job.finished(out)]
            print(
                f"{len(wanted) - len(missing)} of {len(wanted)} runs are finished in {out}; Ctrl-C stops after a round"
            )
            runs = Runs(out)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, runs.stop)
            with ThreadPoolExecutor(at_once) as pool:
                ended = list(pool.map(runs.run, missing))
    except Timeout:
        raise RunDirectoryError(f"another {PROG} is at work in {out}: wait for it, or choose another --out") from None
    return 1 if not all(ended) else 130 if runs.stopped else 0


def _parser() -> Parser:
    parser = Parser(PROG, EXAMPLES, DESCRIPTION)
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "runs" / "recipes",
        metavar="DIR",
        help="folder of runs (default runs/recipes)",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, of one thread each (default 1)")
    parser.add_argument("--only", action="append", choices=RECIPES, metavar="NAME", help="this recipe; repeatable")
    parser.add_argument("--table", action="store_true", help="only write the tables anew")
    return parser


def _environment() -> dict[str, str]:
    """Ours, without settings that would change a recipe, and with one thread whatever computes."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENVIRONMENT_PREFIX) or name in OTHER_ENVIRONMENT
    }
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _end(job: Job, out: Path, log: Path) -> str:
    rows = job.rows(out)
    if job.finished(out):
        return f"{rows[-1]['test_accuracy']:.2%} after {job.rounds} rounds"
    last = (log.read_text(errors="replace").splitlines() or ["it said nothing"])[-1]
    return f"stopped with {max(len(rows) - 1, 0)} of {job.rounds} rounds, see {log}: {last}"


if __name__ == "__main__":
    run_command(main, PROG)
