"""What tracking costs a run: ``python -m benchmarks.tracking``.

A log call, beside one that writes to the file itself; and whole runs on this machine: without a
tracker, with one that answers, and with one that hangs from the fifth round on, in turns. The
service is the one of tests/tracking, on loopback.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from fl_core.metrics import Value
from fl_core.tracking.contract import Part
from fl_core.tracking.local import FIGURES
from fl_core.tracking.part import Record
from tests.tracking.aws.fixture import ExperimentsService

ROUNDS = 600
FIT_SECONDS = 0.01
"""Of each round, busy with Python and with numpy in turns, as a fit is."""
TURNS = 3
SPEC = Path(__file__).parents[1] / "examples/heart-disease-mlp.yaml"


def timed(log: Callable[[int, str], None]) -> list[float]:
    """Seconds of each call, sorted, between rounds of training."""
    matrix = np.random.default_rng(0).random((100, 100))
    found = []
    for round in range(1, ROUNDS + 1):
        until = time.perf_counter() + FIT_SECONDS
        while time.perf_counter() < until:
            _ = sum(float(row[0]) for row in matrix @ matrix)
        for name in FIGURES:
            start = time.perf_counter()
            log(round, name)
            found.append(time.perf_counter() - start)
    return sorted(found)


def calls(folder: Path) -> None:
    """Log calls, and what they would be."""
    value = Value(0.5)
    gc.freeze()  # as roles do

    def nothing(round: int, name: str) -> None:
        pass

    with (folder / "direct.jsonl").open("w") as file:

        def direct(round: int, name: str) -> None:
            file.write(json.dumps({"time": time.time(), "round": round, "name": name}) + "\n")
            file.flush()

        rows = {"no call at all": timed(nothing), "written by the caller": timed(direct)}
    part = Part("run", "north", "0" * 64, 1.0, {})
    with Record(folder, part, []) as record:
        rows["Record.log"] = timed(lambda round, name: record.log("north", round, name, value))
    print(f"{len(rows['Record.log'])} calls, us        median   99.9 %    worst")
    for name, seconds in rows.items():
        most = seconds[int(len(seconds) * 0.999)]
        figures = (seconds[len(seconds) // 2], most, seconds[-1])
        print(f"{name:24}" + "".join(f"{figure * 1e6:11.1f}" for figure in figures))


def run(service: ExperimentsService, folder: Path, *options: str) -> float:
    """Seconds of one ``fl run``."""
    command = [sys.executable, "-m", "fl_core.cli", "run", str(SPEC), *options]
    start = time.perf_counter()
    subprocess.run(
        command, cwd=folder, env=service.environment, check=True, capture_output=True, timeout=300
    )
    return time.perf_counter() - start


def runs(folder: Path) -> None:
    """Whole runs, in turns."""
    service = ExperimentsService(folder / "aws")
    taken: dict[str, list[float]] = {"untracked": [], "tracked": [], "hanging": []}
    try:
        for turn in range(TURNS):
            for kind, seconds in taken.items():
                service.reset()
                if kind == "hanging":
                    # 25 points of five rounds are two calls.
                    service.fault("hang", operation="BatchPutMetrics", after=2, each=True)
                options = () if kind == "untracked" else ("--track", "sagemaker")
                seconds.append(run(service, folder, "--out", f"{kind}-{turn}", *options))
                service.release()
    finally:
        service.end()
    base = median(taken["untracked"])
    print("\nfl run                     s   more than untracked, s")
    for kind, seconds in taken.items():
        print(f"{kind:20}{median(seconds):8.1f}{median(seconds) - base:15.1f}")


def main() -> None:
    """Measure and print."""
    os.environ.setdefault("NO_COLOR", "1")
    with tempfile.TemporaryDirectory() as folder:
        calls(Path(folder))
        runs(Path(folder))


if __name__ == "__main__":
    main()
