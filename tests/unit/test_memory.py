"""Threads share what they free: seen from glibc's own account of its arenas."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from fl_core.transport.memory import MOST_ARENAS

CODE = """
import ctypes, sys, threading
from fl_core.transport.memory import share_freed_memory
if sys.argv[2] == "shared":
    share_freed_memory()
together = threading.Barrier(9)
def work():
    kept = [bytes(10_000) for _ in range(10)]
    together.wait(30)
    together.wait(30)
for _ in range(8):
    threading.Thread(target=work).start()
together.wait(30)
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
together.wait(30)
"""


def arenas(folder: Path, how: str) -> int:
    """How many there are with eight threads at work."""
    file = folder / how
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", CODE, str(file), how]
    subprocess.run(command, cwd=root, check=True, timeout=60)
    return file.read_text().count("<heap nr=")


def test_threads_share_what_they_free(tmp_path):
    if not hasattr(ctypes.CDLL(None), "malloc_info"):
        pytest.skip("the C library is not glibc")
    assert arenas(tmp_path, "shared") <= MOST_ARENAS < arenas(tmp_path, "apart")
