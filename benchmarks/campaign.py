"""Runs what is missing of many runs, a process each, and writes the tables they make into a document.

Every process has one thread. What is finished is skipped and what was stopped goes on where it stopped, so a campaign
may be stopped at any time.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.job import Job
from common.command_line import Parser
from common.errors import DataError, RunDirectoryError, UsageError
from common.layers import ENVIRONMENT_PREFIX, OTHER_ENVIRONMENT
from common.replacing import replacing

ROOT = Path(__file__).resolve().parent.parent
LOOK_SECONDS = 2.0  # between two looks at whether a run is at its goal


@dataclass(frozen=True)
class Campaign:
    """Runs in groups, and the page that shows what came of them."""

    name: str  # of its module, its folder below runs/, its page in docs/ and, unless ``target`` says, its make target
    description: str
    groups: Sequence[str]  # what --only may name
    jobs: Callable[[Sequence[str]], Sequence[Job]]  # of some groups, in the order to run them
    tables: Callable[[Path], str]  # Markdown, of the finished runs in a folder
    target: str = ""

    @property
    def prog(self) -> str:
        """Its command."""
        return f"python -m benchmarks.{self.name}"

    @property
    def document(self) -> Path:
        """Its page."""
        return ROOT / "docs" / f"{self.name}.md"

    def main(self) -> int:
        """Run what is missing, write the tables; returns the exit code."""
        arguments = self._parser().parse_args()
        out = arguments.out.expanduser().resolve()
        cores = os.cpu_count() or 1
        if not 1 <= arguments.jobs <= cores:
            raise UsageError(f"--jobs must be 1 to {cores}, the cores of this machine, got {arguments.jobs}")
        code = 0 if arguments.table else run(self.jobs(arguments.only or self.groups), out, arguments.jobs)
        write_between_marks(self.document, self.target or self.name, self.tables(out))
        print(f"the tables are in {self.document}")
        return code

    def _parser(self) -> Parser:
        out, target = ROOT / "runs" / self.name, self.target or self.name
        examples = (
            f"  make {target}                    all runs, one after another; hours\n"
            f"  make {target} JOBS=2             two at once\n"
            f"  {self.prog} --only {self.groups[0]}\n"
            f"  {self.prog} --table    write the tables anew, run nothing"
        )
        ends = "It exits with 1 if a run failed, with 130 if it was stopped."
        parser = Parser(self.prog, examples, f"{self.description}\n\n{__doc__}\n{ends}")
        add = parser.add_argument
        add("--out", type=Path, default=out, metavar="DIR", help=f"folder of runs (default runs/{self.name})")
        add("--jobs", type=int, default=1, metavar="N", help="runs at once, of one thread each (default 1)")
        add("--only", action="append", choices=self.groups, metavar="NAME", help="runs of this name; repeatable")
        add("--table", action="store_true", help="only write the tables anew")
        return parser


def run(wanted: Sequence[Job], out: Path, at_once: int) -> int:
    """Run what is missing of ``wanted`` in ``out``, ``at_once`` processes; returns the exit code.

    Raises:
        RunDirectoryError: another campaign is at work there, or a run was made with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", blocking=False):
            for job in wanted:
                job.check(out)
            missing = [job for job in wanted if not job.finished(out)]
            finished = len(wanted) - len(missing)
            print(f"{finished} of {len(wanted)} runs are finished in {out}; Ctrl-C stops after a round", flush=True)
            runs = Runs(out)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, runs.stop)
            with ThreadPoolExecutor(at_once) as pool:
                ended = list(pool.map(runs.run, missing))
    except Timeout:
        raise RunDirectoryError(
            f"another one of these is at work in {out}: wait for it, or choose another --out"
        ) from None
    return 1 if not all(ended) else 130 if runs.stopped else 0


def write_between_marks(document: Path, name: str, text: str) -> None:
    """Put ``text`` between the two marks of ``document`` that ``marks(name)`` gives.

    Raises:
        DataError: the document cannot be read or written, or its marks are missing.
    """
    begin, end = marks(name)
    try:
        content = document.read_text(encoding="utf-8")
        before, found, rest = content.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise DataError(f"{document} must hold {begin} and then {end}, the place of the tables: restore them")
        with replacing(document) as sink:
            sink.write(f"{before}{begin}\n\n{text}\n\n{end}{after}".encode())
    except OSError as error:
        raise DataError(f"cannot rewrite {document}: {error.strerror}") from None


def marks(name: str) -> tuple[str, str]:
    """The lines around the tables of a campaign in its page."""
    return f"<!-- measured: begin (make {name}) -->", "<!-- measured: end -->"


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
            code = _ended(process, lambda: job.reached(self._out))
            self._processes.discard(process)
        job.keep(self._out)
        done = job.finished(self._out)
        print(f"{job.name}: {_end(job, self._out, log)}", flush=True)
        return done or (self.stopped and code == 130)


def _ended(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> int:
    """The exit code of ``process``, which is told to stop after its round once all that is wanted of it is there."""
    while True:
        try:
            return process.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if reached():
                process.send_signal(signal.SIGTERM)
                return process.wait()


def _environment() -> dict[str, str]:
    """Ours, without settings that would change a run, and with one thread whatever computes."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENVIRONMENT_PREFIX) or name in OTHER_ENVIRONMENT
    }
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _end(job: Job, out: Path, log: Path) -> str:
    rows = job.rows(out)
    if job.finished(out):
        return f"{rows[-1][job.measure]:.2%} after {len(rows) - 1} rounds"
    last = (log.read_text(errors="replace").splitlines() or ["it said nothing"])[-1]
    return f"stopped with {max(len(rows) - 1, 0)} of {job.rounds} rounds, see {log}: {last}"
