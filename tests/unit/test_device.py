"""Rule: what a machine says of itself is bounded and true for this process; a torch that kills is found at once."""

import os
import platform
import stat
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
import torch

from client.device import PROBE, check_cpu, cpu_model, describe, set_threads
from common.errors import UsageError
from common.quota import usable_cores, usable_memory

AFFINITY = len(os.sched_getaffinity(0))
MEMORY = psutil.virtual_memory().total
DIES = "import os, signal; os.kill(os.getpid(), signal.{})"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDGE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_this_machine_is_described_in_bounded_printable_texts() -> None:
    device = describe()
    assert device.arch == platform.machine()
    assert device.python == platform.python_version()
    assert device.torch == torch.__version__
    assert device.cpu
    assert device.cores == usable_cores() >= 1
    assert 0 < device.memory_bytes <= MEMORY
    for value in asdict(device).values():
        assert len(str(value)) <= 80
        assert str(value).isprintable()


def test_without_quotas_the_affinity_and_the_memory_count(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == AFFINITY
    assert usable_memory(tmp_path) == MEMORY


def test_the_tightest_control_group_counts(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/system.slice/fedge.service\n")
    write(tmp_path, "sys/fs/cgroup/system.slice/fedge.service/cpu.max", "max 100000\n")
    write(tmp_path, "sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n")  # 1.5 cores: 1
    write(tmp_path, "sys/fs/cgroup/system.slice/fedge.service/memory.max", "1000000\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", "2000000\n")
    assert usable_cores(tmp_path) == 1
    assert usable_memory(tmp_path) == 1_000_000


def test_less_than_a_core_is_one(tmp_path: Path) -> None:
    write(tmp_path, "sys/fs/cgroup/cpu.max", "10000 100000")
    assert usable_cores(tmp_path) == 1


@pytest.mark.parametrize("text", ["", "max 100000", "100 0", "garbage", "-5 100000"])
def test_a_quota_that_is_none_is_ignored(text: str, tmp_path: Path) -> None:
    write(tmp_path, "sys/fs/cgroup/cpu.max", text)
    assert usable_cores(tmp_path) == AFFINITY


def test_a_control_group_above_its_root_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/../../x\n")
    assert usable_cores(tmp_path) == AFFINITY


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nprocessor\t: 1\nmodel name\t: B\n", "A CPU @ 2 GHz"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n", "Cortex-A72"),
        ("CPU part\t: 0x123\n", "Arm part 0x123"),
        ("model name\t: \x1b[31m" + "x" * 200 + "\n", " [31m".strip() + "x" * 76),
    ],
)
def test_the_processor_is_named(cpuinfo: str, name: str, tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", cpuinfo)
    assert cpu_model(tmp_path) == name


def test_a_processor_that_says_nothing_is_its_architecture(tmp_path: Path) -> None:
    assert cpu_model(tmp_path) in (platform.processor(), platform.machine())


def test_threads_reach_torch_and_too_many_are_said() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == ""
        assert torch.get_num_threads() == 1
        assert set_threads(AFFINITY + 1).startswith(f"{AFFINITY + 1} threads on ")
        assert torch.get_num_threads() == AFFINITY + 1
    finally:
        torch.set_num_threads(before)


def test_no_threads_are_refused() -> None:
    with pytest.raises(UsageError, match="--threads must be at least 1, got 0"):
        set_threads(0)


def test_other_architectures_are_not_tried(state: Path) -> None:
    check_cpu("x86_64", DIES.format("SIGKILL"))
    assert not state.exists()


def test_a_build_that_dies_is_refused_with_its_remedy(state: Path) -> None:
    message = (
        r"torch \S+ does not run on this processor \(.+\): it dies of an illegal instruction;"
        r" install a build for CPUs, e\.g\. `uv pip install --torch-backend=cpu "
    )
    for _ in range(2):  # a failure is not kept: the build may have been replaced
        with pytest.raises(UsageError, match=message):
            check_cpu("aarch64", DIES.format("SIGILL"))
    assert not (state / "cpu-check.json").exists()


def test_another_signal_is_named() -> None:
    with pytest.raises(UsageError, match="it dies of SIGKILL;"):
        check_cpu("aarch64", DIES.format("SIGKILL"))


def test_an_exception_is_left_to_training_and_not_kept(state: Path) -> None:
    check_cpu("aarch64", "raise SystemExit(1)")
    assert not (state / "cpu-check.json").exists()


def test_the_probe_passes_here_once_and_is_not_repeated(state: Path) -> None:
    check_cpu("aarch64", PROBE)
    check_cpu("aarch64", DIES.format("SIGKILL"))  # kept: not run
    kept = state / "cpu-check.json"
    assert stat.S_ISREG(kept.stat().st_mode)
    kept.write_text("{damaged")
    with pytest.raises(UsageError, match="it dies of"):
        check_cpu("aarch64", DIES.format("SIGKILL"))
