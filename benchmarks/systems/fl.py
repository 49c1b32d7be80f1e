"""This project: ``fl run`` with the plugin of benchmarks.tiny_model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

from benchmarks.processes import ROOT, run_fl
from benchmarks.systems.contract import HEAD, Measured, Setting, Work, measured


def run(work: Work, rounds: int, folder: Path) -> Measured:
    """An aggregator, and a process a silo."""
    names = [f"silo-{i}" for i in range(1, work.silos + 1)]
    params = {"values": work.values, "silos": work.silos}
    file = run_file(folder, "bench-constant", params, rounds, "bench-rows", names)
    done = run_fl([str(file)], folder / "run", watched=True, environment=with_plugin(folder))
    times = [row["time"] for row in done.metrics() if row["name"] == "Duration:Round"]
    head = load_file(done.folder / "model.safetensors")["weights"][:HEAD].tolist()
    assert done.watch is not None
    return measured(work, rounds, done.started, times, head, done.watch, "aggregator")


def run_file(
    folder: Path,
    model: str,
    params: Mapping[str, Any],
    rounds: int,
    dataset: str,
    silos: Sequence[str],
) -> Path:
    """A run file in ``folder``, for one of the plugin's models."""
    content = {
        "name": model,
        "dataset": {"name": dataset},
        "silos": list(silos),
        "model": {"name": model, "params": dict(params)},
        "strategy": {"name": "fedavg"},
        "rounds": rounds,
    }
    file = folder / f"{model}-{len(silos)}.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def with_plugin(folder: Path) -> dict[str, str]:
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


SETTINGS = (Setting("fl", "this project, fl run", "mutual TLS 1.3", run),)
