"""What this machine is, which the server is told at hello; and whether this torch runs on it."""

import json
import platform
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from common.errors import UsageError
from common.quota import usable_cores, usable_memory
from common.state import state_dir

_ROOT = Path("/")
_MAX_TEXT = 80  # characters: what a machine calls itself travels in the hello, which is bounded
_ARM_PARTS = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76"}  # Raspberry Pi 3, 4, 5
_PROBE_SECONDS = 300  # importing torch on a small board takes many seconds
# What training does to a processor, in small. No core file: the crash is expected.
PROBE = """
import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import torch, torch.nn.functional as F
torch.set_num_threads(1)
kernel = torch.randn(16, 6, 5, 5, requires_grad=True); weight = torch.randn(10, 400, requires_grad=True)
hidden = F.max_pool2d(F.relu(F.conv2d(torch.randn(32, 6, 14, 14), kernel)), 2).flatten(1)
F.cross_entropy(F.linear(hidden, weight), torch.zeros(32, dtype=torch.long)).backward()
"""


@dataclass(frozen=True)
class Device:
    """What a machine is; texts are printable and at most 80 characters, "" where unknown."""

    hostname: str
    arch: str
    python: str
    torch: str
    cpu: str
    board: str  # "Raspberry Pi 4 Model B Rev 1.4"; "" on other machines
    cores: int  # that this process may use, >= 1
    memory_bytes: int  # that this process may use, > 0


def describe() -> Device:
    """Describe this machine, without importing torch."""
    return Device(
        hostname=_text(socket.gethostname()),
        arch=_text(platform.machine()),
        python=platform.python_version(),
        torch=_torch_version(),
        cpu=cpu_model(),
        board=_text(_read("proc/device-tree/model", _ROOT)),
        cores=usable_cores(),
        memory_bytes=usable_memory(),
    )


def set_threads(threads: int) -> str:
    """Let torch compute with ``threads`` threads (>= 1); returns "" or a warning for people.

    Raises:
        UsageError: ``threads`` is less than 1.
    """
    if threads < 1:
        raise UsageError(f"--threads must be at least 1, got {threads}")
    import torch  # here: a client that only describes its machine does without

    torch.set_num_threads(threads)
    if threads > (cores := usable_cores()):
        return f"{threads} threads on {cores} usable core{'s' if cores > 1 else ''} train slower than {cores} would"
    return ""


def cpu_model(root: Path = _ROOT) -> str:
    """The processor's name, such as ``Cortex-A72``; the architecture where nothing says more."""
    lines = re.findall(r"^(model name|CPU part)\s*:\s*(.+)$", _read("proc/cpuinfo", root), flags=re.MULTILINE)
    facts = {key: value.strip() for key, value in reversed(lines)}
    part = facts.get("CPU part", "")
    arm = _ARM_PARTS.get(part, f"Arm part {part}" if part else "")
    return _text(facts.get("model name", "") or arm or platform.processor() or platform.machine())


def check_cpu(arch: str | None = None, probe: str = PROBE) -> None:
    """On 64-bit Arm, try once whether this torch runs on this processor, in a process that may die of it.

    Some builds of torch use instructions that older cores (Raspberry Pi 4) lack. What passed is kept
    in the state folder by torch's version and the processor. Anything but death by a signal passes:
    training itself reports those better.

    Args:
        arch: the machine's architecture; None = ask.
        probe: the Python program to try.

    Raises:
        UsageError: the process was killed by a signal; says what to install instead.
    """
    if (arch or platform.machine()) not in ("aarch64", "arm64"):
        return
    facts = {"torch": _torch_version(), "cpu": cpu_model()}
    passed = state_dir() / "cpu-check.json"
    with suppress(OSError, ValueError):
        if json.loads(passed.read_text(encoding="utf-8")) == facts:
            return
    try:
        code = subprocess.run(  # noqa: S603 — our own program
            [sys.executable, "-c", probe], capture_output=True, timeout=_PROBE_SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return
    if code < 0:
        raise UsageError(
            f"torch {facts['torch']} does not run on this processor ({facts['cpu']}): it dies of {_signal(-code)};"
            " install a build for CPUs, e.g. `uv pip install --torch-backend=cpu torch==2.13.0 torchvision==0.28.0`"
        )
    if code == 0:
        with suppress(OSError):  # unkept, it is tried again next time
            passed.write_text(json.dumps(facts), encoding="utf-8")


def _read(path: str, root: Path) -> str:
    try:
        with (root / path).open("rb") as file:
            return file.read(65_536).decode("utf-8", "replace")
    except OSError:
        return ""


def _text(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text.rstrip("\0")).strip()[:_MAX_TEXT]


def _torch_version() -> str:
    try:
        return _text(metadata.version("torch"))
    except metadata.PackageNotFoundError:
        return ""


def _signal(number: int) -> str:
    if number == signal.SIGILL:
        return "an illegal instruction"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
