"""Stock FedML 0.9.6, nothing patched: its environment, its processes, the heart-disease MLP job."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.environments import environment
from benchmarks.processes import ROOT, BenchmarkError, Watch, as_parent, started
from benchmarks.systems.contract import THREADS, finish
from benchmarks.systems.ports import HOST, free_ports
from fl_core import plugins, spec
from fl_core.dataset import Table
from fl_core.job import Job, resolve
from fl_core.preprocessing import Moments, Parts, Scaling
from fl_core.seeding import derive

FOLDER = ROOT / "benchmarks" / "stock-fedml"
REQUIREMENTS = FOLDER / "requirements.txt"


@dataclass(frozen=True)
class StockRun:
    """A finished run on stock FedML."""

    seconds: float
    """From the start of the first process to the end of the last."""
    round_seconds: list[float]
    """Between one round's aggregated state and the next."""
    auc: float
    """Of the last state on the pooled test rows."""
    watch: Watch


def run(file: Path, folder: Path) -> StockRun:
    """Run the job of a run file on stock FedML: a server and a process a silo, on loopback."""
    run_spec, source = spec.load(file)
    job = resolve(run_spec, source, plugins.load(), file.parent)
    config = _prepare(job, folder)
    home = folder / "home"
    home.mkdir()
    variables = {**os.environ, **THREADS, "HOME": str(home), "PYTHONWARNINGS": "ignore"}
    variables.pop("PYTHONPATH", None)
    start = time.perf_counter()
    watch = launch("job.py", config, len(job.spec.silos), folder, variables, shared=True)
    seconds = time.perf_counter() - start
    found = json.loads((folder / "times.json").read_text(encoding="utf-8"))
    if len(found["aggregated"]) != job.spec.rounds:
        raise BenchmarkError(f"stock FedML: {len(found['aggregated'])} rounds, see the job's log")
    steps = np.diff(found["aggregated"]).tolist()
    return StockRun(seconds, steps, found["auc"][-1], watch)


def configure(folder: Path, silos: int, rounds: int, seed: int, train: Mapping[str, Any]) -> Path:
    """FedML's configuration and its addresses, written to ``folder``; gives the former's path."""
    addresses = folder / "addresses.csv"
    lines = ["eid,rank,grpc_server_ip,grpc_server_port"]
    ports = enumerate(free_ports(silos + 1))
    lines += [f"{rank},{rank},{HOST},{port}" for rank, port in ports]
    addresses.write_text("\n".join(lines) + "\n", encoding="ascii")
    sections = {
        "common_args": {
            "training_type": "cross_silo",
            "scenario": "horizontal",
            "using_mlops": False,
            "random_seed": seed,
            "config_version": "release",
        },
        "data_args": {"dataset": "bench", "job_folder": str(folder)},
        "model_args": {"model": "bench"},
        "train_args": {
            "federated_optimizer": "FedAvg",
            "client_num_in_total": silos,
            "client_num_per_round": silos,
            "comm_round": rounds,
            **train,
        },
        "validation_args": {"frequency_of_the_test": 1},
        "device_args": {"worker_num": silos, "using_gpu": False},
        "comm_args": {"backend": "GRPC", "grpc_ipconfig_path": str(addresses)},
        "tracking_args": {
            "enable_tracking": False,
            "enable_wandb": False,
            "log_file_dir": str(folder / "logs"),
        },
    }
    config = folder / "fedml_config.yaml"
    config.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return config


def launch(
    script: str,
    config: Path,
    silos: int,
    folder: Path,
    variables: Mapping[str, str],
    shared: bool = False,
) -> Watch:
    """Run the server and the silos of a job to their end; all start together."""
    python = environment("fedml", REQUIREMENTS)

    def command(rank: int) -> list[str]:
        role = "client" if rank else "server"
        options = ["--cf", str(config), "--rank", str(rank), "--role", role]
        return [str(python), str(FOLDER / script), *options, "--run_id", "bench"]

    with ExitStack() as stack:
        logs = [folder / f"log-{rank}.txt" for rank in range(silos + 1)]
        processes = [
            stack.enter_context(started(command(rank), log, variables))
            for rank, log in enumerate(logs)
        ]
        names = ["server", *(f"silo {rank}" for rank in range(1, silos + 1))]
        pids = [process.pid for process in processes]
        watch = Watch(dict(zip(pids, names, strict=True)), as_parent, shared)
        stack.callback(watch.end_all)
        finish(processes, logs)
    return watch


def _prepare(job: Job, folder: Path) -> Path:
    """The job's rows, first state and FedML configuration in ``folder``; gives the last's path."""
    loaded = {silo: job.load(silo) for silo in job.spec.silo_names}
    scaling = Scaling.pooled(Moments.of(parts.train) for parts in loaded.values())
    scaled = [_scaled(parts, scaling) for parts in loaded.values()]
    for i, parts in enumerate(scaled):
        _save(folder / f"silo-{i}.npz", [parts.train])
    _save(folder / "test.npz", [parts.test for parts in scaled])
    first = job.model.initial_state(derive(job.spec.seed, "init"))
    np.savez(folder / "init.npz", allow_pickle=False, **first)
    params = job.model.params.model_dump()
    if params["optimizer"] != "sgd" or params["weight_decay"]:
        raise BenchmarkError("the stock job knows plain SGD only")
    own = {
        "epochs": params["local_epochs"],
        "batch_size": params["batch_size"],
        "client_optimizer": "sgd",
        "learning_rate": params["learning_rate"],
    }
    return configure(folder, len(loaded), job.spec.rounds, job.spec.seed % 2**32, own)


def _scaled(parts: Parts, scaling: Scaling) -> Parts:
    tables = (parts.train, parts.validation, parts.test)
    return Parts(*(scaling.apply(table, keep_missing=False) for table in tables))


def _save(path: Path, tables: Sequence[Table]) -> None:
    features = np.concatenate([table.features for table in tables]).astype(np.float32)
    labels = np.concatenate([table.labels for table in tables]).astype(np.float32)
    np.savez(path, features=features, labels=labels)
