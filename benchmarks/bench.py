"""How fast it is, beside stock FedML, Flower, NVFlare and the raw floor.

``python -m benchmarks.bench`` runs everything one after the other on this machine, prints tables
and writes benchmarks/results/bench.json (every figure) and bench.md (the tables). It then fails if
a system failed or a required figure does not hold. With ``--systems`` or ``--sizes`` it only
compares those, and writes to build/bench instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import comparison, stock
from benchmarks.processes import (
    ROOT,
    BenchmarkError,
    FlRun,
    Process,
    Watch,
    end_on_sigterm,
    run_fl,
)
from benchmarks.systems.contract import WORKS
from benchmarks.systems.fl import run_file, with_plugin
from benchmarks.tiny_model import Rows

RESULTS = ROOT / "benchmarks" / "results"
PARTIAL = ROOT / "build" / "bench"
MLP = ROOT / "examples" / "heart-disease-mlp.yaml"
XGBOOST = ROOT / "examples" / "heart-disease-xgboost.yaml"
SILOS = ("cleveland", "hungary", "switzerland", "va-long-beach")
HEART_DISEASE = "heart-disease"
SLOW_SILO = SILOS[-1]
SLOW_SECONDS = 10.0
TINY_ROUNDS = 200
MANY_ROUNDS = 60
MEBIBYTE = 1024**2
LARGEST = "100"
FLOOR_TIMES = 1.5
MOST_BYTES = 900 * 10**6
NOTE = (
    "Medians. The work is the same for all: one float32 array (tiny: 1,600 values), to which every "
    "silo adds a constant of its own; the mean of the answers is the next state, and what the last "
    "one must be is checked. Each silo is a process on loopback, or an actor of Ray. "
    "Flower's deployment has three rounds, NVFlare's default six; they and the others' systems are "
    "run once, this project and the floor several times in turn with them. Here the silos also "
    "score every state; elsewhere nothing is scored. See the "
    "[README](../README.md) for how each system is set up."
)
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


def overhead(folder: Path, rounds: int, dataset: str, silos: Sequence[str]) -> list[float]:
    """For each round of a tiny model, its seconds beyond the fit of its slowest silo."""
    file = run_file(folder, "bench-tiny", {}, rounds, dataset, silos)
    out = folder / f"tiny-{len(silos)}"
    run = run_fl([str(file)], out, environment=with_plugin(folder))
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
    file = run_file(folder, "bench-slow", params, 1, HEART_DISEASE, SILOS)
    run = run_fl([str(file)], folder / "slow", watched=True, environment=with_plugin(folder))
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
    ours, theirs = [], []
    for i in range(repeats):
        run = run_fl([str(MLP)], folder / f"ours-{i}", watched=True, shared=True)
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


def measure(repeats: int, tiny_rounds: int) -> Figures:
    """All figures but the comparison's."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        figures: Figures = {}
        many = MANY_ROUNDS, Rows.name, Rows.silos
        for title, key, step in (
            ("make demo's jobs", "demo_seconds", lambda: demo(folder, repeats)),
            (
                "a tiny model",
                "overhead_seconds",
                lambda: overhead(folder, tiny_rounds, HEART_DISEASE, SILOS),
            ),
            ("64 silos", "overhead_seconds_of_64", lambda: overhead(folder, *many)),
            ("a slow silo", "waiting_cpu_share", lambda: waiting(folder)),
            ("stock FedML", "mlp", lambda: beside_stock(folder, max(1, repeats - 1))),
        ):
            print(f"{title} ...", flush=True)
            figures[key] = step()
    return figures


def _sitting(figures: Figures, command: str, load: float) -> Figures:
    return {
        "command": command,
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
    """The figures as Markdown: those parts that were measured."""
    parts = [_heading(figures)]
    if requirements(figures):
        parts.append(_own(figures))
    if "systems" in figures:
        parts += [comparison.table(figures["systems"]), NOTE]
    if "mlp" in figures:
        parts.append(_compared(figures["mlp"]))
    return "\n\n".join(parts) + "\n"


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
    """The required figures of what was measured, each beside what it must be."""
    return [
        *(_whole(figures) if "demo_seconds" in figures else []),
        *_late(figures, "overhead_seconds", 4, 10),
        *_late(figures, "overhead_seconds_of_64", 64, 60),
        *(_waiting(figures) if "waiting_cpu_share" in figures else []),
        *(_large(figures["systems"]) if "systems" in figures else []),
    ]


def _whole(figures: Figures) -> list[Requirement]:
    seconds = figures["demo_seconds"]
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
    ]


def _waiting(figures: Figures) -> list[Requirement]:
    shares = figures["waiting_cpu_share"]
    busiest = max(shares, key=lambda name: shares[name])
    share = 100 * shares[busiest]
    return [
        Requirement(
            f"CPU of each of {len(shares)} waiting processes",
            f"at most {share:.1f} % of a core ({busiest})",
            "under 2 %",
            share < 2,
        )
    ]


def _late(figures: Figures, key: str, silos: int, most: float) -> list[Requirement]:
    if key not in figures:
        return []
    late = figures[key]
    middle, p90 = 1000 * median(late), 1000 * float(np.percentile(late, 90))
    return [
        Requirement(
            f"round minus slowest silo's fit, tiny model, {silos} silos, {len(late)} rounds",
            f"median {middle:.1f} ms, 90th percentile {p90:.1f} ms",
            f"median at most {most:.0f} ms",
            middle <= most,
        )
    ]


def _large(systems: Figures) -> list[Requirement]:
    """Beside the floor, where both were measured."""
    ours, floor = (
        comparison.seconds(systems, name, LARGEST) for name in (comparison.OURS, comparison.FLOOR)
    )
    if ours is None or floor is None:
        return []
    runs = systems["runs"][comparison.OURS][LARGEST]
    peak = median(run["server_bytes"] for run in runs)
    return [
        Requirement(
            "a round of 100 MB, 4 silos",
            f"{ours:.2f} s, {ours / floor:.2f} times the raw floor's {floor:.2f} s",
            f"at most {FLOOR_TIMES} times",
            ours <= FLOOR_TIMES * floor,
        ),
        Requirement(
            "the aggregator's peak memory at it",
            f"{peak / 10**6:.0f} MB",
            f"at most {MOST_BYTES // 10**6} MB",
            peak <= MOST_BYTES,
        ),
    ]


def shortfalls(figures: Figures) -> list[str]:
    """Systems that failed, and requirements that do not hold."""
    failed = figures.get("systems", {}).get("failed", {})
    return [f"{name} failed, {why}" for name, why in failed.items()] + [
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
    return [(run.get("aggregator") or run["server"]) / MEBIBYTE for run in figures["peak_bytes"]]


def _all(figures: Figures) -> list[float]:
    return [peak / MEBIBYTE for peak in figures["peak_bytes_together"]]


def _of(known: Collection[str]) -> Callable[[str], list[str]]:
    """A reader of a list with commas."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read


def main() -> int:
    """Measure, print, write; 1 when a figure could not be measured or is not as required."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    sizes = [work.name for work in WORKS]
    systems = list(comparison.SYSTEMS)
    parser.add_argument("--systems", type=_of(systems), help=f"of {','.join(systems)}")
    parser.add_argument("--sizes", type=_of(sizes), help=f"of {','.join(sizes)}; 64: of silos")
    parser.add_argument("--repeats", type=int, default=3, help="of what is not slow (3)")
    parser.add_argument("--tiny-rounds", type=int, default=TINY_ROUNDS, help=f"({TINY_ROUNDS})")
    arguments = parser.parse_args()
    whole = arguments.systems is None and arguments.sizes is None
    end_on_sigterm()
    load = os.getloadavg()[0]
    figures: Figures = {}
    try:
        if whole:
            figures = measure(arguments.repeats, arguments.tiny_rounds)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    figures["systems"] = comparison.compare(
        arguments.systems or systems, arguments.sizes or sizes, arguments.repeats
    )
    figures = _sitting(figures, " ".join(["python -m benchmarks.bench", *sys.argv[1:]]), load)
    text = table(figures)
    results = RESULTS if whole else PARTIAL
    results.mkdir(parents=True, exist_ok=True)
    (results / "bench.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (results / "bench.md").write_text(text, encoding="utf-8")
    print(text)
    wrong = shortfalls(figures)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
