"""How much of this machine this process may use: its control groups and its affinity may grant less than all."""

import os
import re
from pathlib import Path

import psutil

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT) -> int:
    """Cores this process may use, >= 1: its affinity, and the CPU quota (rounded down) of its control groups."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [int(quota) // int(period) for quota, period in _limits("cpu.max", r"(\d+) ([1-9]\d*)", root)]
    return max(1, min([affinity, *quotas]))


def usable_memory(root: Path = _ROOT) -> int:
    """Bytes of memory this process may use: the machine's, or less where its control groups say so."""
    return min(
        [int(psutil.virtual_memory().total), *(int(limit) for (limit,) in _limits("memory.max", r"(\d+)", root))]
    )


def _limits(file: str, pattern: str, root: Path) -> list[tuple[str, ...]]:
    # Control groups, version 2: a limit holds for all groups below, so look from ours up to the root.
    own = re.search(r"^0::/(.*)$", _text(root / "proc/self/cgroup"), flags=re.MULTILINE)
    group = Path(own.group(1)) if own and ".." not in own.group(1) else Path()
    texts = (_text(root / "sys/fs/cgroup" / level / file) for level in (group, *group.parents))
    return [match.groups() for text in texts if (match := re.fullmatch(pattern, text.strip()))]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
