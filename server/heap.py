"""How this process gets its memory, keeps it from round to round, and how often Python looks for garbage in it."""

import ctypes
import gc

# Of glibc's malloc.h, and the largest that it takes for the second.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 32 * 1024 * 1024
NEW_OBJECTS = 20_000  # until the collector looks; Python's own number is 700


def share_one_heap() -> bool:
    """Call it before the first thread starts; whether it did anything: only glibc has several heaps, and these calls.

    What one thread gives back another can take. Blocks of up to 32 MiB come from the heap, which keeps as much free
    memory at its end: else the system takes the memory of a round's updates away and clears every page of it anew.
    """
    options = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _KEPT_BYTES), (_M_TRIM_THRESHOLD, _KEPT_BYTES))
    try:
        mallopt = ctypes.CDLL(None).mallopt
        return all(bool(mallopt(*option)) for option in options)
    except (AttributeError, OSError, TypeError):
        return False


def collect_less_often() -> None:
    """Let the collector look less often: most of what a round makes lives until its end."""
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
