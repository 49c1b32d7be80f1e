"""The work that every system does, and what is measured of it.

A model of one float32 array; in each round every silo adds a constant of its own to the state, and
the next state is the mean of the answers. Nothing is trained. What the state must be at the end is
known, so a system that did other work is found out.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.processes import TIMEOUT_SECONDS, BenchmarkError, Watch

HEAD = 8
"""So many values of the last state are compared with what they must be."""
LEFT_OUT = "left out for time"
"""Why a slow system is not asked for a size between two others."""
THREADS: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Work:
    """What is to be done."""

    name: str
    values: int
    """Of the one float32 array."""
    silos: int
    rounds: int
    """As many as are measured of a system that is not slow."""

    @property
    def megabytes(self) -> float:
        """Of the state, 10**6 bytes each."""
        return 4 * self.values / 10**6


WORKS = (
    Work("tiny", 1_600, 4, 50),
    Work("1", 250_000, 4, 30),
    Work("10", 2_500_000, 4, 15),
    Work("100", 25_000_000, 4, 7),
    Work("64", 1_600, 64, 30),
)
"""Four silos and a tiny array, or 1, 10 or 100 MB; 64 silos and the tiny array."""


@dataclass(frozen=True)
class Measured:
    """One run. The floor has only what has no default."""

    round_seconds: list[float]
    """From one round's aggregated state to the next."""
    server_bytes: int
    """Peak memory of the process, or processes, that make up the server."""
    silo_bytes: int | None = None
    """As much of the largest silo."""
    start_seconds: float | None = None
    """From the first command to the end of round 1."""
    seconds: float | None = None
    """From the first command to the end of the last process."""
    cpu_seconds: float | None = None
    """Of all processes, from start to end."""


@dataclass(frozen=True)
class Setting:
    """A system as it can be set up."""

    name: str
    title: str
    tls: str
    """What is encrypted and who is authenticated."""
    run: Callable[[Work, int, Path], Measured]
    """Do the work for so many rounds, with an empty folder to write to."""
    most_rounds: int = 1_000
    once: bool = False
    """Too slow to be repeated."""
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Why a work, by name, cannot be done on this machine."""

    def rounds(self, work: Work) -> int:
        """How many are run."""
        return min(work.rounds, self.most_rounds)


def initial(work: Work) -> np.ndarray:
    """The state that round 1 starts from: random, since some systems send equal parts once."""
    return np.random.default_rng(0).standard_normal(work.values, dtype=np.float32)


def prepare(work: Work, folder: Path) -> dict[str, str]:
    """Write initial.npy to ``folder``; gives the variables that other systems' processes get.

    Their HOME is the folder, where they may leave what they want.
    """
    np.save(folder / "initial.npy", initial(work))
    home = folder / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, **THREADS, "HOME": str(home), "PYTHONWARNINGS": "ignore"}


def measured(
    work: Work,
    rounds: int,
    began: float,
    aggregated: Sequence[float],
    head: Sequence[float],
    watch: Watch,
    server: str = "server",
) -> Measured:
    """The figures of a run that has just ended.

    ``began``: when the first command was given; ``aggregated``: when each round's state stood;
    ``head``: the first values of the last state; ``server``: what ``watch`` calls the server.
    Raises BenchmarkError when the system did not do the work.
    """
    seconds = time.time() - began
    if len(aggregated) != rounds:
        raise BenchmarkError(f"{len(aggregated)} rounds instead of {rounds}")
    wanted = initial(work)[:HEAD] + rounds * (work.silos + 1) / (2 * work.silos)
    if not np.allclose(head, wanted, atol=1e-3):
        raise BenchmarkError(f"the last state starts {list(head)} instead of {wanted.tolist()}")
    peaks = watch.peaks()
    silos = [peak for name, peak in peaks.items() if name.startswith("silo")]
    if server not in peaks or not silos:
        raise BenchmarkError(f"no server or no silo among the processes: {sorted(peaks)}")
    return Measured(
        np.diff(aggregated).tolist(),
        peaks[server],
        max(silos),
        aggregated[0] - began,
        seconds,
        sum(process.cpu_seconds for process in watch.processes()),
    )


def written(folder: Path) -> tuple[list[float], list[float]]:
    """What a job wrote to times.json: the moments and the first values of the last state."""
    path = folder / "times.json"
    if not path.exists():
        return [], []
    found = json.loads(path.read_text(encoding="utf-8"))
    return found["aggregated"], found["head"]


def finish(processes: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]) -> None:
    """Wait for all. The first to fail ends the waiting, for others may wait for it for ever.

    Raises BenchmarkError with the end of its log.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        running = [process for process in processes if process.poll() is None]
        for process, log in zip(processes, logs, strict=True):
            if process.returncode:
                raise BenchmarkError(f"{log.stem} ended {process.returncode}:\n{tail(log)}")
        if not running:
            return
        if time.monotonic() > deadline:
            raise BenchmarkError(f"no end after {TIMEOUT_SECONDS:.0f} s")
        time.sleep(0.02)


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
