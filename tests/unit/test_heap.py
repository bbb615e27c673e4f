"""The server's memory: threads share one heap."""

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives threads heaps of their own")
def test_threads_take_their_memory_from_one_heap() -> None:
    assert _num_heaps("shared") == 1
    assert _num_heaps("as it is") > 1


def _num_heaps(how: str) -> int:
    said = subprocess.run([sys.executable, "-c", COUNT_HEAPS, how], capture_output=True, text=True, check=True)
    return said.stdout.count("<heap nr=")
