"""How a process that serves many streams has the C library keep its memory."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
MOST_ARENAS = 2


def share_freed_memory() -> None:
    """Have threads share what they free, where the C library is glibc (mallopt(3), M_ARENA_MAX).

    Else each of up to eight arenas a core keeps what the streams of its threads once needed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, MOST_ARENAS)
