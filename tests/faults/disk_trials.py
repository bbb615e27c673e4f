"""Lets a disk fail under a server or a node at one point, mends the disk, and holds the run to one without."""

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.crash_schedules import VICTIM, faults
from tests.faults.crash_trials import Stage, judge
from tests.faults.federation import NODES, PATIENCE_SECONDS, Federation
from tests.faults.injector import Deed, Fault
from tests.faults.outcome import Outcome

KINDS: dict[Deed, str] = {"ENOSPC": "disk full", "EROFS": "disk read-only", "EIO": "one call fails"}
_FILES = {"open", "write", "truncate", "fsync", "replace", "link", "unlink", "mkdir", "chmod"}
_STOPPED = (1, 2)  # the exit codes that go with a sentence
# What may fail without a word: lines of the log, the removal of what the next start removes, folders that are there,
# and links, in whose place there is a copy.
_MINOR = ("run.log", " unlink ", " mkdir ", " link ")


@dataclass(frozen=True)
class DiskFault:
    """Whose disk fails, and where; a full or read-only one stays so for a while."""

    who: str
    fault: Fault

    @property
    def name(self) -> str:
        """What it can be found by."""
        return f"{self.fault.deed} at {self.fault.point} #{self.fault.occurrence}"


def disk_faults(stage: Stage) -> dict[str, list[DiskFault]]:
    """All of them by family: each kind at each call of a run that changes a file."""
    found: dict[str, list[DiskFault]] = {}
    for who, whose in (("server", "server"), (VICTIM, "node")):
        for deed, kind in KINDS.items():
            at = faults(stage.reference_points(who), deed, _can_fail)
            found[f"{whose}: {kind}"] = [DiskFault(who, fault) for fault in at]
    return found


def play_disk(stage: Stage, disk: DiskFault, name: str = "trial") -> Outcome:
    """The whole story of one disk."""
    reference = stage.reference
    federation = stage.federation(name)
    try:
        record = federation.folder / "passed.points"
        for who in ("server", *NODES):
            federation.start(who, *((disk.fault, record) if who == disk.who else ()))
        code = federation.wait(disk.who)
        num_faults = int(_passed(record, disk.fault))
        if code in _STOPPED:
            problems = _unsaid(federation, disk, stopped=True)
            federation.start(disk.who)
            problems += _ends(federation)
        else:
            problems = [] if code in (0, None) else [f"{disk.who} ended with {code}"]
            problems += (_unsaid(federation, disk, stopped=False) if num_faults else []) + _ends(federation)
        return judge(disk.name, federation, reference, num_faults, problems, may_leave=code not in _STOPPED)
    finally:
        federation.end()


def _can_fail(point: str) -> bool:
    words = point.split()
    return len(words) == 4 and ":" in words[0] and words[1] in _FILES and words[2] != "null" and words[3] != "after"


def _passed(record: Path, fault: Fault) -> bool:
    """Whether it came to the fault: how often a lock is opened, say, depends on who waits for it."""
    return record.read_text().splitlines().count(fault.point) >= fault.occurrence


def _unsaid(federation: Federation, disk: DiskFault, stopped: bool) -> list[str]:
    """A process that stops gives the reason, and one that goes on does so too, unless it is a trifle."""
    reason = os.strerror(getattr(errno, disk.fault.deed))
    said = federation.said(disk.who)
    is_said = reason in said or reason in _log(federation)
    if is_said or (not stopped and any(word in disk.fault.point for word in _MINOR)):
        return []
    return [f"{disk.who} {'stopped' if stopped else 'went on'} without {reason!r}"]


def _log(federation: Federation) -> str:
    path = federation.run / "run.log"
    return path.read_text(errors="replace") if path.exists() else ""


def _ends(federation: Federation) -> list[str]:
    """Wait for everyone's end; nodes that the end of a server's first life ended are started again."""
    codes: dict[str, int | None] = dict.fromkeys(federation.pids)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while federation.pids and time.monotonic() < deadline:
        for who in list(federation.pids):
            code = federation.wait(who, 0.1)
            if code == 1 and who in NODES:  # so ends --once when the server's run ended before it was done
                federation.start(who)
            elif code is not None:
                codes[who] = code
    return [f"{who} ended with {code}" for who, code in codes.items() if code != 0]
