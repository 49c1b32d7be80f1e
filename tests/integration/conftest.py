"""The command line as a user has it, run files, and plugins made for one test."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fl_core.cli import main

ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Fl = Callable[..., Outcome]


@pytest.fixture
def fl(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fl:
    """``fl`` in this process, in a folder of the test's own.

    The process that roles are forked from is kept between tests: that is what makes them quick.
    """
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(int(exit_info.value.code or 0), out, err)

    return call


def fl_process(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """``fl`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "fl_core.cli", *(str(argument) for argument in arguments)],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def spec(**changes: Any) -> dict[str, Any]:
    """A small run of the four hospitals, with ``changes``."""
    return {
        "name": "small",
        "dataset": {"name": "heart-disease"},
        "silos": ["cleveland", "hungary", "switzerland", "va-long-beach"],
        "model": {"name": "mlp", "params": {"layers": [4], "local_epochs": 1}},
        "strategy": {"name": "fedavg"},
        "rounds": 2,
        "seed": 1,
    } | changes


@pytest.fixture
def spec_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run file: ``spec_file(rounds=3)``."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(spec(**changes), sort_keys=False))
        return path

    return write


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Installs a plugin for one test: ``plugin("name", "source of its module")``."""

    def install(name: str, source: str) -> Path:
        site = tmp_path / "site"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        module = f"plugin_{name}_{tmp_path.name}".replace("-", "_")
        (info / "entry_points.txt").write_text(f"[fl_core]\n{name} = {module}\n")
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        return site

    return install


PROBE = """
    import numpy as np
    from pydantic import Field
    from fl_core.hookspecs import hookimpl
    from fl_core.model import Model, ModelParams, Update

    class Params(ModelParams):
        fault: str = Field("", description="what to do wrong")
        fault_round: int = 2
        fault_silo: str = "hungary"

    class Probe(Model):
        name = "probe"
        Params = Params
        strategies = ("fedavg",)

        def initial_state(self, seed):
            if self.params.fault == "initial_state":
                raise KeyError("initial")
            return {"w": np.zeros(3, dtype=np.float32)}

        def fit(self, state, table, context):
            here = context.silo == self.params.fault_silo
            fault = self.params.fault if here and context.round == self.params.fault_round else ""
            w = state["w"] + table.labels.mean(dtype=np.float32)
            loss = 0.5
            if fault == "raises":
                raise ValueError("secret cell 54321")
            if fault == "exits":
                import os
                os._exit(9)
            if fault == "nan":
                w[1] = np.nan
            if fault == "nan-loss":
                loss = float("nan")
            if fault == "shape":
                w = w[:2]
            if fault == "large":
                w = np.zeros(100_000, dtype=np.float32)
            weight = 10_000 if fault == "weight" else len(table)
            return Update({"w": w}, weight, {"loss": loss})

        def predict(self, state, table):
            if self.params.fault == "predict-nan":
                return np.full(len(table), np.nan)
            if self.params.fault == "predict-shape":
                return np.zeros((len(table), 2))
            return np.full(len(table), 0.5)

    @hookimpl
    def register_models(register):
        register(Probe)
"""


@pytest.fixture
def probe(plugin: Callable[[str, str], Path]) -> Path:
    """A model named ``probe`` that does wrong what its parameters say."""
    return plugin("probe", PROBE)


def children_of(pid: int) -> list[int]:
    """Processes whose ancestor is ``pid``, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]
