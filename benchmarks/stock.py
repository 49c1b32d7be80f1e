"""The heart-disease MLP job on stock FedML 0.9.6: its environment, its inputs, its processes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml

from benchmarks.processes import ROOT, TIMEOUT_SECONDS, BenchmarkError, Watch, started
from fl_core import plugins, spec
from fl_core.dataset import Table
from fl_core.job import Job, resolve
from fl_core.preprocessing import Moments, Parts, Scaling
from fl_core.seeding import derive

FOLDER = ROOT / "benchmarks" / "stock-fedml"
REQUIREMENTS = FOLDER / "requirements.txt"
ENVIRONMENT = ROOT / "build" / "bench-fedml"
GPU = re.compile(r"(torch|torchvision|triton|nvidia-[^=]*|cuda-[^=]*)==")
"""What a CPU build of PyTorch comes without, or from an index with hashes of its own."""
HOST = "127.0.0.1"
THREADS: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


def environment() -> Path:
    """The interpreter of stock FedML's environment, which is made when it is not there."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / ".locked"
    lock = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == lock:
        return python
    print("stock FedML: making its environment in build/bench-fedml", flush=True)
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT))
    sync = ["pip", "sync", "--quiet", "--require-hashes", "--python", str(python)]
    if version("torch").endswith("+cpu"):
        locked = REQUIREMENTS.read_text(encoding="utf-8")
        rest = ENVIRONMENT / "requirements-cpu.txt"
        rest.write_text("".join(p for p in pins(locked) if not GPU.match(p)), encoding="utf-8")
        _uv(*sync, str(rest))
        torch = [f"{name}=={_pinned(locked, name)}" for name in ("torch", "torchvision")]
        install = ["pip", "install", "--quiet", "--no-deps", "--torch-backend", "cpu"]
        _uv(*install, "--python", str(python), *torch)
    else:
        _uv(*sync, str(REQUIREMENTS))
    stamp.write_text(lock, encoding="ascii")
    return python


def pins(locked: str) -> list[str]:
    """The requirements of a lock, each with the lines of its hashes."""
    return re.findall(r"^\S.*\n(?:[ \t].*\n)*", locked, re.MULTILINE)


def _pinned(locked: str, name: str) -> str:
    found = re.search(rf"^{name}==([^ ;]+)", locked, re.MULTILINE)
    assert found is not None
    return found[1]


def _uv(*arguments: str) -> None:
    beside = Path(sys.executable).with_name("uv")
    uv = beside if beside.exists() else ROOT / ".venv" / "bin" / "uv"
    if not uv.exists():
        raise BenchmarkError("uv is not beside this interpreter: make setup")
    done = subprocess.run([uv, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"uv {' '.join(arguments[:2])}: {done.stderr.strip()}")


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
    python = environment()
    run_spec, source = spec.load(file)
    job = resolve(run_spec, source, plugins.load(), file.parent)
    config = _prepare(job, folder)
    ports = _free_ports(len(job.spec.silos) + 1)
    _write_addresses(folder, ports)
    home = folder / "home"
    home.mkdir()
    variables = {**os.environ, **THREADS, "HOME": str(home), "PYTHONWARNINGS": "ignore"}
    variables.pop("PYTHONPATH", None)

    def command(rank: int) -> list[str]:
        role = "client" if rank else "server"
        options = ["--cf", str(config), "--rank", str(rank), "--role", role]
        return [str(python), str(FOLDER / "job.py"), *options, "--run_id", "bench"]

    start = time.perf_counter()
    with ExitStack() as stack:
        logs = [folder / f"log-{rank}.txt" for rank in range(len(ports))]
        processes = [
            stack.enter_context(started(command(rank), log, variables))
            for rank, log in enumerate(logs)
        ]
        names = ["aggregator", *(f"silo {silo}" for silo in job.spec.silo_names)]
        pids = [process.pid for process in processes]
        watch = Watch(dict(zip(pids, names, strict=True)))
        stack.callback(watch.stop)
        _finish(processes, logs)
        seconds = time.perf_counter() - start
    found = json.loads((folder / "times.json").read_text(encoding="utf-8"))
    if len(found["aggregated"]) != job.spec.rounds:
        raise BenchmarkError(f"stock FedML: {len(found['aggregated'])} rounds, see the job's log")
    steps = np.diff(found["aggregated"]).tolist()
    return StockRun(seconds, steps, found["auc"][-1], watch)


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
    sections = {
        "common_args": {
            "training_type": "cross_silo",
            "scenario": "horizontal",
            "using_mlops": False,
            "random_seed": job.spec.seed % 2**32,
            "config_version": "release",
        },
        "data_args": {"dataset": "heart-disease", "job_folder": str(folder)},
        "model_args": {"model": "mlp"},
        "train_args": {
            "federated_optimizer": "FedAvg",
            "client_num_in_total": len(loaded),
            "client_num_per_round": len(loaded),
            "comm_round": job.spec.rounds,
            "epochs": params["local_epochs"],
            "batch_size": params["batch_size"],
            "client_optimizer": "sgd",
            "learning_rate": params["learning_rate"],
        },
        "validation_args": {"frequency_of_the_test": 1},
        "device_args": {"worker_num": len(loaded), "using_gpu": False},
        "comm_args": {"backend": "GRPC", "grpc_ipconfig_path": str(folder / "addresses.csv")},
        "tracking_args": {
            "enable_tracking": False,
            "enable_wandb": False,
            "log_file_dir": str(folder / "logs"),
        },
    }
    config = folder / "fedml_config.yaml"
    config.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return config


def _scaled(parts: Parts, scaling: Scaling) -> Parts:
    tables = (parts.train, parts.validation, parts.test)
    return Parts(*(scaling.apply(table, keep_missing=False) for table in tables))


def _save(path: Path, tables: Sequence[Table]) -> None:
    features = np.concatenate([table.features for table in tables]).astype(np.float32)
    labels = np.concatenate([table.labels for table in tables]).astype(np.float32)
    np.savez(path, features=features, labels=labels)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def _write_addresses(folder: Path, ports: Sequence[int]) -> None:
    lines = ["eid,rank,grpc_server_ip,grpc_server_port"]
    lines += [f"{rank},{rank},{HOST},{port}" for rank, port in enumerate(ports)]
    (folder / "addresses.csv").write_text("\n".join(lines) + "\n", encoding="ascii")


def _finish(processes: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]) -> None:
    """Wait for all; a process that fails ends the waiting, for the others would wait for ever."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while any(process.poll() is None for process in processes):
        for process, log in zip(processes, logs, strict=True):
            if process.poll():
                raise BenchmarkError(f"stock FedML ended {process.returncode}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise BenchmarkError(f"stock FedML: no end after {TIMEOUT_SECONDS:.0f} s")
        time.sleep(0.02)
    for process, log in zip(processes, logs, strict=True):
        if process.returncode:
            raise BenchmarkError(f"stock FedML ended {process.returncode}:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
