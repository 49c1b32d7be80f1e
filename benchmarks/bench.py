"""How fast it is, beside the same job on stock FedML.

``python -m benchmarks.bench`` runs everything one after the other on this machine, prints a table
and writes benchmarks/results/bench.json (every figure) and bench.md (the table). It then fails if
a required figure does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from benchmarks import stock
from benchmarks.processes import (
    ROOT,
    BenchmarkError,
    FlRun,
    Process,
    Watch,
    end_on_sigterm,
    run_fl,
)

RESULTS = ROOT / "benchmarks" / "results"
MLP = ROOT / "examples" / "heart-disease-mlp.yaml"
XGBOOST = ROOT / "examples" / "heart-disease-xgboost.yaml"
SILOS = ("cleveland", "hungary", "switzerland", "va-long-beach")
SLOW_SILO = SILOS[-1]
SLOW_SECONDS = 10.0
TINY_ROUNDS = 200
MEBIBYTE = 1024**2
Figures = dict[str, Any]


def demo(folder: Path, repeats: int) -> Figures:
    """Whole-process seconds of ``make demo``'s two jobs; the first, cold, time does not count."""
    seconds: dict[str, list[float]] = {"mlp": [], "xgboost": []}
    for i in range(repeats + 1):
        for name, file in (("mlp", MLP), ("xgboost", XGBOOST)):
            run = run_fl([str(file)], folder / f"demo-{name}-{i}")
            if i:
                seconds[name].append(run.seconds)
    both = [sum(pair) for pair in zip(*seconds.values(), strict=True)]
    return {**seconds, "both": both}


def overhead(folder: Path, rounds: int) -> list[float]:
    """For each round of a tiny model, its seconds beyond the fit of its slowest silo."""
    file = _run_file(folder, "bench-tiny", {}, rounds)
    run = run_fl([str(file)], folder / "tiny", environment=_with_plugin(folder))
    whole = run.column("Duration:Round", lambda row: row["round"])
    fits = run.column("Duration:Fit", lambda row: (row["round"], row["silo"]))
    slowest = {
        round: max(value or 0.0 for (other, _), value in fits.items() if other == round)
        for round in whole
    }
    return [(whole[round] or 0.0) - slowest[round] for round in sorted(whole)]


def waiting(folder: Path) -> dict[str, float]:
    """Share of a core that each process takes while one silo is still training."""
    params = {"silo": SLOW_SILO, "seconds": SLOW_SECONDS}
    file = _run_file(folder, "bench-slow", params, 1)
    run = run_fl([str(file)], folder / "slow", watched=True, environment=_with_plugin(folder))
    answered = {row["silo"]: row["time"] for row in run.metrics() if row["name"] == "Training:Loss"}
    end = answered[SLOW_SILO]
    start = max(moment for silo, moment in answered.items() if silo not in (SLOW_SILO, None))
    assert run.watch is not None
    shares = {
        process.name: process.cpu_share(start + 0.5, end - 0.5) for process in run.watch.processes()
    }
    seen = {name: share for name, share in shares.items() if share is not None}
    if not seen:
        raise BenchmarkError("no waiting process was seen for long enough")
    return seen


def beside_stock(folder: Path, repeats: int) -> dict[str, Figures]:
    """The MLP job here and on stock FedML, taking turns."""
    stock.environment()
    ours, theirs = [], []
    for i in range(repeats):
        run = run_fl([str(MLP)], folder / f"ours-{i}", watched=True)
        ours.append(_figures(run.seconds, _round_seconds(run), _auc(run), run.watch))
        inside = folder / f"stock-{i}"
        inside.mkdir()
        other = stock.run(MLP, inside)
        theirs.append(_figures(other.seconds, other.round_seconds, other.auc, other.watch))
    return {"ours": _together(ours), "stock": _together(theirs)}


def _round_seconds(run: FlRun) -> list[float]:
    """Between one round's aggregated state and the next, as it is measured on stock FedML."""
    times = [row["time"] for row in run.metrics() if row["name"] == "Duration:Round"]
    return np.diff(times).tolist()


def _auc(run: FlRun) -> float:
    rows = [r for r in run.metrics() if r["name"] == "Test:AUC" and r["role"] == "aggregator"]
    return rows[-1]["value"]


def _figures(
    seconds: float, round_seconds: list[float], auc: float, watch: Watch | None
) -> Figures:
    assert watch is not None
    processes = watch.processes()
    return {
        "seconds": seconds,
        "round_seconds": round_seconds,
        "loop_seconds": sum(round_seconds),
        "cpu_seconds": sum(process.cpu_seconds for process in processes),
        "peak_bytes": _peaks(processes),
        "peak_bytes_together": watch.peak_shared_bytes,
        "auc": auc,
    }


def _peaks(processes: Iterable[Process]) -> dict[str, int]:
    peaks: dict[str, int] = {}
    for process in processes:
        peaks[process.name] = max(peaks.get(process.name, 0), process.peak_bytes)
    return peaks


def _together(runs: Sequence[Figures]) -> Figures:
    """A list of each figure."""
    return {name: [run[name] for run in runs] for name in runs[0]}


def _run_file(folder: Path, model: str, params: Mapping[str, Any], rounds: int) -> Path:
    content = {
        "name": model,
        "dataset": {"name": "heart-disease"},
        "silos": list(SILOS),
        "model": {"name": model, "params": dict(params)},
        "strategy": {"name": "fedavg"},
        "rounds": rounds,
    }
    file = folder / f"{model}.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def _with_plugin(folder: Path) -> dict[str, str]:
    """The environment in which benchmarks.tiny_model is an installed plugin."""
    installed = folder / "plugin"
    info = installed / "fl_core_bench-0.dist-info"
    if not info.exists():
        info.mkdir(parents=True)
        metadata = "Metadata-Version: 2.1\nName: fl-core-bench\nVersion: 0\n"
        (info / "METADATA").write_text(metadata, encoding="ascii")
        entry = "[fl_core]\nbench = benchmarks.tiny_model\n"
        (info / "entry_points.txt").write_text(entry, encoding="ascii")
    path = [str(installed), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in path if part)}


def measure(repeats: int, tiny_rounds: int) -> Figures:
    """All figures."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        figures: Figures = {}
        for title, key, step in (
            ("make demo's jobs", "demo_seconds", lambda: demo(folder, repeats)),
            ("a tiny model", "overhead_seconds", lambda: overhead(folder, tiny_rounds)),
            ("a slow silo", "waiting_cpu_share", lambda: waiting(folder)),
            ("stock FedML", "mlp", lambda: beside_stock(folder, max(1, repeats - 1))),
        ):
            print(f"{title} ...", flush=True)
            figures[key] = step()
    return {
        "command": "python -m benchmarks.bench",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load_at_start": round(load, 2),
        **_rounded(figures),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


def table(figures: Figures) -> str:
    """The figures as Markdown."""
    return "\n\n".join([_heading(figures), _own(figures), _compared(figures["mlp"])]) + "\n"


def _heading(figures: Figures) -> str:
    return (
        f"`{figures['command']}`, {figures['date']}, {figures['cores']} cores, Python "
        f"{figures['python']}. The machine is shared and noisy (load {figures['load_at_start']} at "
        "the start): seconds vary from run to run; ratios of figures of the same run say more."
    )


@dataclass(frozen=True)
class Requirement:
    """A figure that must hold."""

    what: str
    measured: str
    required: str
    holds: bool


def requirements(figures: Figures) -> list[Requirement]:
    """The required figures, each beside what was measured."""
    seconds = figures["demo_seconds"]
    late = figures["overhead_seconds"]
    middle, p90 = 1000 * median(late), 1000 * float(np.percentile(late, 90))
    shares = figures["waiting_cpu_share"]
    busiest = max(shares, key=lambda name: shares[name])
    share = 100 * shares[busiest]
    return [
        Requirement(
            f"`make demo` repeated: both jobs, {len(seconds['both'])} times",
            _seconds(seconds["both"]),
            "at most 30 s",
            median(seconds["both"]) <= 30,
        ),
        Requirement(
            f"one MLP run, whole process, {len(seconds['mlp'])} times",
            _seconds(seconds["mlp"]),
            "at most 15 s",
            median(seconds["mlp"]) <= 15,
        ),
        Requirement(
            f"round minus slowest silo's fit, tiny model, 4 silos, {len(late)} rounds",
            f"median {middle:.1f} ms, 90th percentile {p90:.1f} ms",
            "median at most 10 ms",
            middle <= 10,
        ),
        Requirement(
            f"CPU of each of {len(shares)} waiting processes",
            f"at most {share:.1f} % of a core ({busiest})",
            "under 2 %",
            share < 2,
        ),
    ]


def shortfalls(figures: Figures) -> list[str]:
    """Requirements that do not hold."""
    return [
        f"{one.what}: {one.measured}, required is {one.required}"
        for one in requirements(figures)
        if not one.holds
    ]


def _own(figures: Figures) -> str:
    lines = ["| what | measured | required | holds |", "|---|---|---|---|"]
    lines += [
        f"| {one.what} | {one.measured} | {one.required} | {'yes' if one.holds else 'no'} |"
        for one in requirements(figures)
    ]
    return "\n".join(lines)


def _seconds(values: Sequence[float]) -> str:
    return f"median {median(values):.1f} s, least {min(values):.1f} s"


def _compared(mlp: Mapping[str, Figures]) -> str:
    ours, other = mlp["ours"], mlp["stock"]
    rows = [
        ("median of a round", _flat(ours), _flat(other), "s", 3),
        ("rounds 2 to 20", ours["loop_seconds"], other["loop_seconds"], "s", 2),
        ("start to end", ours["seconds"], other["seconds"], "s", 1),
        ("CPU, all processes", ours["cpu_seconds"], other["cpu_seconds"], "s", 1),
        ("peak memory, largest silo", _silo(ours), _silo(other), "MiB", 0),
        ("peak memory, aggregator", _aggregator(ours), _aggregator(other), "MiB", 0),
        ("peak memory together, shared pages once", _all(ours), _all(other), "MiB", 0),
    ]
    lines = [
        f"| heart-disease MLP, 4 silos, {len(ours['seconds'])} times in turn | here | stock FedML "
        "0.9.6, its gRPC | here / stock |",
        "|---|---|---|---|",
    ]
    for name, mine, theirs, unit, digits in rows:
        a, b = median(mine), median(theirs)
        lines.append(f"| {name} | {a:.{digits}f} {unit} | {b:.{digits}f} {unit} | {a / b:.2f} |")
    auc = f"{median(ours['auc']):.3f} | {median(other['auc']):.3f}"
    lines.append(f"| Test:AUC of the last state | {auc} | |")
    lines += [
        "",
        "Both train the same network from the same first state on the same scaled rows, on "
        "loopback, one thread a process. Here the stream is mutual TLS, the silos score every "
        "state, and a report is written; stock FedML sends pickles in plaintext, and its "
        "server has the test rows. It asks its vendor for a configuration at start; the name "
        "does not resolve, as on a machine without a network, and those seconds are in its start "
        "to end.",
    ]
    return "\n".join(lines)


def _flat(figures: Figures) -> list[float]:
    return [seconds for run in figures["round_seconds"] for seconds in run]


def _silo(figures: Figures) -> list[float]:
    return [
        max(peak for name, peak in run.items() if name.startswith("silo")) / MEBIBYTE
        for run in figures["peak_bytes"]
    ]


def _aggregator(figures: Figures) -> list[float]:
    return [run["aggregator"] / MEBIBYTE for run in figures["peak_bytes"]]


def _all(figures: Figures) -> list[float]:
    return [peak / MEBIBYTE for peak in figures["peak_bytes_together"]]


def main() -> int:
    """Measure, print, write; 1 when a figure could not be measured or is not as required."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="of make demo's jobs (3)")
    parser.add_argument("--tiny-rounds", type=int, default=TINY_ROUNDS, help=f"({TINY_ROUNDS})")
    arguments = parser.parse_args()
    end_on_sigterm()
    try:
        figures = measure(arguments.repeats, arguments.tiny_rounds)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    text = table(figures)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "bench.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "bench.md").write_text(text, encoding="utf-8")
    print(text)
    wrong = shortfalls(figures)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
