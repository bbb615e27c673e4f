"""How this process gets its memory: from one heap for all threads, so that what one gives back another can take."""

import ctypes

_M_ARENA_MAX = -8  # of glibc's malloc.h


def share_one_heap() -> bool:
    """Call it before the first thread starts; whether it did anything: only glibc has several heaps, and this call."""
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1))
    except (AttributeError, OSError, TypeError):
        return False
