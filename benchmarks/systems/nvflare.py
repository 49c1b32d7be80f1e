"""NVFlare: its POC mode, a real deployment on one machine, and its simulator."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.environments import environment
from benchmarks.processes import ROOT, Watch, started
from benchmarks.systems.contract import (
    LEFT_OUT,
    Measured,
    Setting,
    Work,
    finish,
    measured,
    prepare,
    written,
)

FOLDER = ROOT / "benchmarks" / "nvflare"
REQUIREMENTS = FOLDER / "requirements.txt"
SITE = re.compile(r"(?:prod_00/|--client |client_name=|simulate_job/)(site-\d+)\b")
SERVER = re.compile(r"prod_00/server\b")

MANY = "not run: 64 silos, each with two processes, take 13 GB and minutes to start"


def _name(title: str) -> str | None:
    """A silo's and the server's processes have their folder's path in the command line."""
    site = SITE.search(title)
    if site:
        return f"silo {site[1]}"
    return "server" if SERVER.search(title) else None


def _run(options: list[str], root: str, work: Work, rounds: int, folder: Path) -> Measured:
    python = environment("nvflare", REQUIREMENTS)
    variables = prepare(work, folder)
    variables["PATH"] = f"{python.parent}:{variables['PATH']}"
    variables["NVFLARE_POC_WORKSPACE"] = str(folder / "poc")
    job = [str(python), str(FOLDER / "job.py"), str(folder), *options]
    command = [*job, "--silos", str(work.silos), "--rounds", str(rounds)]
    log = folder / "nvflare.log"
    began = time.time()
    with started(command, log, variables) as process:
        watch = Watch({process.pid: root}, _name)
        try:
            finish([process], [log])
        finally:
            watch.end_all()
        return measured(work, rounds, began, *written(folder), watch)


def _with(root: str, *options: str) -> Callable[[Work, int, Path], Measured]:
    return partial(_run, list(options), root)


SETTINGS = (
    Setting(
        "nvflare-poc",
        "POC mode, FedAvg and the Client API, the default",
        "mutual TLS",
        _with("submitter", "--env", "poc"),
        most_rounds=6,
        once=True,
        cannot={"1": LEFT_OUT, "64": MANY},
    ),
    Setting(
        "nvflare-poc-collab",
        "POC mode, Collab API",
        "mutual TLS",
        _with("submitter", "--env", "poc", "--collab"),
        once=True,
        cannot={"1": LEFT_OUT, "64": MANY},
    ),
    Setting(
        "nvflare-simulator-collab",
        "simulator, a process a silo, Collab API, the fastest",
        "none",
        _with("server", "--env", "sim", "--collab"),
        once=True,
    ),
)
