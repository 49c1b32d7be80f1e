"""The environments of other systems, made below build/ from hash-locked requirements."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import ROOT, BenchmarkError

BUILD = ROOT / "build"
GPU = re.compile(r"(torch|torchvision|triton|nvidia-[^=]*|cuda-[^=]*)==")
"""What a CPU build of PyTorch comes without, or from an index with hashes of its own."""


def environment(name: str, requirements: Path) -> Path:
    """The interpreter of the environment ``build/bench-NAME``, made when it is not there.

    Raises BenchmarkError when it cannot be made.
    """
    folder = BUILD / f"bench-{name}"
    python = folder / "bin" / "python"
    stamp = folder / ".locked"
    locked = requirements.read_text(encoding="utf-8")
    digest = hashlib.sha256(locked.encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return python
    print(f"making the environment of {name} in build/{folder.name}", flush=True)
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    sync = [
        "pip",
        "sync",
        "--quiet",
        "--compile-bytecode",
        "--require-hashes",
        "--python",
        str(python),
    ]
    if version("torch").endswith("+cpu") and pinned(locked, "torch"):
        rest = folder / "requirements-cpu.txt"
        rest.write_text("".join(p for p in pins(locked) if not GPU.match(p)), encoding="utf-8")
        _uv(*sync, str(rest))
        torch = [f"{name}=={pinned(locked, name)}" for name in ("torch", "torchvision")]
        install = [
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--compile-bytecode",
            "--torch-backend",
            "cpu",
        ]
        _uv(*install, "--python", str(python), *torch)
    else:
        _uv(*sync, str(requirements))
    stamp.write_text(digest, encoding="ascii")
    return python


def pins(locked: str) -> list[str]:
    """The requirements of a lock, each with the lines of its hashes."""
    return re.findall(r"^\S.*\n(?:[ \t].*\n)*", locked, re.MULTILINE)


def pinned(locked: str, name: str) -> str | None:
    """The version that a lock has of a distribution; None if it has none."""
    found = re.search(rf"^{name}==([^ ;]+)", locked, re.MULTILINE)
    return found and found[1]


def _uv(*arguments: str) -> None:
    beside = Path(sys.executable).with_name("uv")
    uv = beside if beside.exists() else ROOT / ".venv" / "bin" / "uv"
    if not uv.exists():
        raise BenchmarkError("uv is not beside this interpreter: make setup")
    done = subprocess.run([uv, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"uv {' '.join(arguments[:2])}: {done.stderr.strip()}")
