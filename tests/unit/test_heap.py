"""The server's memory: threads share one heap, it is kept from round to round, and collected less often."""

import gc
import platform
import subprocess
import sys

import pytest

COUNT_HEAPS = """
import ctypes, sys, threading
from server.heap import share_one_heap

if sys.argv[1] == "shared":
    assert share_one_heap()
allocate = ctypes.CDLL(None).malloc
together = threading.Barrier(4)

def work():
    together.wait()
    allocate(1000)
    together.wait()

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""

COUNT_FAULTS = """
import resource, sys
from server.heap import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def faults_of_a_round():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    updates = [b"x" * 1_000_000 for _ in range(20)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of_a_round()
print(faults_of_a_round())
"""
only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")


@only_glibc
def test_threads_take_their_memory_from_one_heap() -> None:
    assert _num_heaps("shared") == 1
    assert _num_heaps("as it is") > 1


@only_glibc
def test_a_round_takes_the_memory_of_the_one_before() -> None:
    pages = 20 * 1_000_000 // 4096  # where they are larger there are fewer, in both cases
    assert int(_said(COUNT_FAULTS, "kept")) < pages // 20
    assert int(_said(COUNT_FAULTS, "as it is")) > pages // 20


def test_the_collector_looks_less_often() -> None:
    script = "import gc; from server.heap import collect_less_often; collect_less_often(); print(gc.get_threshold())"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str((20_000, *gc.get_threshold()[1:]))


def _num_heaps(how: str) -> int:
    return _said(COUNT_HEAPS, how).count("<heap nr=")


def _said(program: str, how: str) -> str:
    return subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True).stdout
