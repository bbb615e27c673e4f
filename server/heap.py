"""How this process gets its memory, keeps it from round to round, and how often Python looks for garbage in it."""

import ctypes
import gc

# Of glibc's malloc.h, and the largest that it takes for the second.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 32 * 1024 * 1024
NEW_OBJECTS = 20_000  # until the collector looks; Python's own number is 700


def share_one_heap() -> bool:
    """Let all threads have one heap: what one gives back another can take. Call it before the first thread starts.

    Returns:
        Whether it did anything: only glibc has several heaps, and this call.
    """
    return _set(_M_ARENA_MAX, 1)


def keep_freed_memory() -> bool:
    """Take blocks of up to 32 MiB from the heap, and leave as much free memory at its end.

    Else the system takes the memory of a round's updates away and clears every page of it anew.

    Returns:
        Whether it did anything, as above.
    """
    return _set(_M_MMAP_THRESHOLD, _KEPT_BYTES) and _set(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def collect_less_often() -> None:
    """Let the collector look less often: most of what a round makes lives until its end."""
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


def _set(option: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None).mallopt(option, value))
    except (AttributeError, OSError, TypeError):
        return False
