"""Large memory that is used again: a process gets and drops the same few large arrays every round.

The C library would give it back to the kernel each time, which fills it with zeros before the next
one has it: a tenth of the time of a round of 100 MB.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
from numpy.typing import DTypeLike

LARGE_BYTES = 1024 * 1024
"""Arrays of fewer bytes are numpy's. Blocks are of whole multiples."""
KEPT_BYTES = 512 * 1024 * 1024
"""Of blocks that nobody uses. Beyond that they are given back, the oldest first."""


class _Lease(np.ndarray):
    """A block in use, for as long as there are arrays or memoryviews of it."""


class _Blocks:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[int, np.ndarray] = {}
        """By id. Put in without the lock, by whichever thread drops the last reference."""

    def take(self, size: int) -> np.ndarray:
        whole = -(-size // LARGE_BYTES) * LARGE_BYTES
        block = self._found(whole)
        if block is None:
            block = np.empty(whole, np.uint8)
        lease = block.view(_Lease)
        weakref.finalize(lease, self._free.__setitem__, id(block), block).atexit = False
        # By its buffer: a view of an array refers to the memory's owner, past the lease.
        return np.frombuffer(lease.data, np.uint8, size)

    def _found(self, whole: int) -> np.ndarray | None:
        with self._lock:
            found, kept = None, 0
            for key, block in reversed(list(self._free.items())):
                if found is None and block.nbytes == whole:
                    found = self._free.pop(key)
                elif kept + block.nbytes > KEPT_BYTES:
                    del self._free[key]
                else:
                    kept += block.nbytes
            return found


_blocks = _Blocks()


def empty(shape: int | tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """As numpy.empty: whatever was in that memory before is in it."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    if size < LARGE_BYTES:
        return np.empty(shape, kind)
    return _blocks.take(size).view(kind).reshape(shape)
