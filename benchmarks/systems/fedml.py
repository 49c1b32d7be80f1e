"""Stock FedML 0.9.6, cross-silo, its gRPC backend."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import stock
from benchmarks.systems.contract import Measured, Setting, Work, measured, prepare, written


def run(work: Work, rounds: int, folder: Path) -> Measured:
    """A server, and a process a silo."""
    variables = prepare(work, folder)
    config = stock.configure(folder, work.silos, rounds, 0, {})
    began = time.time()
    watch = stock.launch("constant.py", config, work.silos, folder, variables)
    return measured(work, rounds, began, *written(folder), watch)


SETTINGS = (
    Setting(
        "fedml",
        "stock FedML 0.9.6, cross-silo gRPC, the default and the fastest",
        "none: plaintext pickles",
        run,
        once=True,
        cannot={
            "64": "not run: 65 processes of 0.9 GB, of which each has 0.5 GB alone, and 10 CPU "
            "seconds of imports each"
        },
    ),
)
