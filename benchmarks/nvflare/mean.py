"""The constant job by NVFlare's Collab API, where the server calls the silos.

NVFlare has no FedAvg for it: the mean is the job's own, of the answers as they come.
"""

# NVFlare is in an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from nvflare.collab import collab


@collab.main
def serve() -> None:
    """All rounds, with every silo in each."""
    folder = Path(collab.get_app_prop("folder"))
    state = np.load(folder / "initial.npy")
    times: list[float] = []
    for _ in range(collab.get_app_prop("rounds")):
        silos = collab.clients
        total = np.zeros_like(state)
        for _, answer in silos(blocking=False, timeout=300.0).add(state):
            total += answer
        state = total / state.dtype.type(len(silos))
        times.append(time.time())
    found = {"aggregated": times, "head": state[:8].tolist()}
    (folder / "times.json").write_text(json.dumps(found), encoding="utf-8")


@collab.publish
def add(state: np.ndarray) -> np.ndarray:
    """A silo adds its constant."""
    number = int(collab.site_name.removeprefix("site-"))
    return state + state.dtype.type(number / collab.get_app_prop("silos"))
