"""The same work on this project, the raw floor and the other systems, and the table of it."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environments import pinned
from benchmarks.processes import BenchmarkError
from benchmarks.systems import fedml, fl, floor, flower, nvflare
from benchmarks.systems.contract import WORKS, Setting, Work

SYSTEMS: dict[str, tuple[Setting, ...]] = {
    "fl": fl.SETTINGS,
    "floor": floor.SETTINGS,
    "fedml": fedml.SETTINGS,
    "flower": flower.SETTINGS,
    "nvflare": nvflare.SETTINGS,
}
LOCKED = {"flower": ("Flower", "flwr", flower), "nvflare": ("NVFlare", "nvflare", nvflare)}
OURS, FLOOR = "fl", "floor"
LARGEST = "100"
MEGABYTE = 10**6
Figures = dict[str, Any]


def compare(systems: Collection[str], sizes: Collection[str], repeats: int) -> Figures:
    """Every setting's runs of every work, and what failed.

    All take turns, so that what else the machine does meets all of them. A setting that fails
    once is not run again.
    """
    settings = [one for name in SYSTEMS if name in systems for one in SYSTEMS[name]]
    works = [work for work in WORKS if work.name in sizes]
    runs: dict[str, dict[str, list[Any]]] = {one.name: {} for one in settings}
    failed: dict[str, str] = {}
    for setting, work in _turns(settings, works, repeats):
        if setting.name in failed:
            continue
        rounds = setting.rounds(work)
        print(f"{setting.name}, {title(work)}, {rounds} rounds ...", flush=True)
        try:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                found = setting.run(work, rounds, Path(folder))
        except BenchmarkError as error:
            failed[setting.name] = f"{title(work)}: {error}"
            print(f"{setting.name}: {error}", flush=True)
        else:
            runs[setting.name].setdefault(work.name, []).append(asdict(found))
    return {
        "sizes": [work.name for work in works],
        "settings": {
            one.name: {"title": _title(one), "tls": one.tls, "cannot": dict(one.cannot)}
            for one in settings
        },
        "runs": runs,
        "failed": failed,
    }


def _turns(
    settings: Sequence[Setting], works: Sequence[Work], repeats: int
) -> Iterator[tuple[Setting, Work]]:
    for turn in range(repeats):
        for work in works:
            for setting in settings:
                if work.name not in setting.cannot and not (turn and setting.once):
                    yield setting, work


def _title(setting: Setting) -> str:
    for system, (name, distribution, module) in LOCKED.items():
        if setting in SYSTEMS[system]:
            locked = module.REQUIREMENTS.read_text(encoding="utf-8")
            return f"{name} {pinned(locked, distribution)}, {setting.title}"
    return setting.title


def title(work: Work) -> str:
    """A work in words."""
    size = "tiny" if work.megabytes < 1 else f"{work.megabytes:.0f} MB"
    return f"{size} x {work.silos}"


def seconds(figures: Figures, setting: str, work: str) -> float | None:
    """Median of a setting's rounds of a work, of all its runs; None if there are none."""
    runs = figures["runs"].get(setting, {}).get(work, [])
    rounds = [one for run in runs for one in run["round_seconds"]]
    return median(rounds) if rounds else None


def table(figures: Figures) -> str:
    """The figures as Markdown: seconds of a round, then what the runs took."""
    return "\n".join([*_rounds(figures), "", *_costs(figures)])


def _rounds(figures: Figures) -> Iterator[str]:
    works = [work for work in WORKS if work.name in figures["sizes"]]
    yield _row(["seconds of a round, and times ours", "TLS", *(title(work) for work in works)])
    yield "|---" * (2 + len(works)) + "|"
    for name, setting in figures["settings"].items():
        cells = [_round(figures, name, work.name) for work in works]
        yield _row([setting["title"], setting["tls"], *cells])


def _round(figures: Figures, setting: str, work: str) -> str:
    found = seconds(figures, setting, work)
    if found is None:
        if setting in figures["failed"]:
            return "failed"
        return figures["settings"][setting]["cannot"].get(work, "not run")
    ours = seconds(figures, OURS, work)
    return _number(found) + (f" ({_number(found / ours)})" if ours else "")


def _costs(figures: Figures) -> Iterator[str]:
    """Of the tiny work and the largest one that were done."""
    small, large = figures["sizes"][0], figures["sizes"][-1]
    if LARGEST in figures["sizes"]:
        large = LARGEST
    works = {work.name: title(work) for work in WORKS}
    yield _row(
        [
            "",
            f"start to the end of round 1, {works[small]}",
            f"CPU of the whole run, {works[small]}",
            f"server's peak memory, {works[large]}",
            f"a silo's, {works[large]}",
        ]
    )
    yield "|---" * 5 + "|"
    for name, setting in figures["settings"].items():
        runs = figures["runs"][name]
        first, last = runs.get(small, []), runs.get(large, [])
        rounds = len(first[0]["round_seconds"]) + 1 if first else 0
        yield _row(
            [
                setting["title"],
                _cell(first, "start_seconds", "s"),
                _cell(first, "cpu_seconds", f"s, {rounds} rounds"),
                _cell(last, "server_bytes", "MB", MEGABYTE),
                _cell(last, "silo_bytes", "MB", MEGABYTE),
            ]
        )


def _cell(runs: Sequence[Mapping[str, Any]], name: str, unit: str, divisor: int = 1) -> str:
    values = [run[name] / divisor for run in runs if run[name] is not None]
    return f"{_number(median(values))} {unit}" if values else ""


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
