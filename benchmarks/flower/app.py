"""The constant job as a Flower app: a silo adds its constant to one array.

Flower's FedAvg; evaluation at the silos is off, since every message would cost a process. The
server's evaluation function is where Flower calls the application after each aggregation, so it
notes the time. The run's configuration names a folder with initial.npy, which gets times.json.
"""

# Flower is in an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

server = ServerApp()
client = ClientApp()


@server.main()
def serve(grid: Grid, context: Context) -> None:
    """All rounds, with every silo in each."""
    folder = Path(str(context.run_config["folder"]))
    silos = int(context.run_config["silos"])
    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=silos,
        min_evaluate_nodes=0,
        min_available_nodes=silos,
    )
    times: list[float] = []

    def note(round: int, arrays: ArrayRecord) -> None:
        if round:
            times.append(time.time())

    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.load(folder / "initial.npy")]),
        num_rounds=int(context.run_config["rounds"]),
        evaluate_fn=note,
    )
    (state,) = result.arrays.to_numpy_ndarrays()
    found = {"aggregated": times, "head": state[:8].tolist()}
    (folder / "times.json").write_text(json.dumps(found), encoding="utf-8")


@client.train()
def train(message: Message, context: Context) -> Message:
    """Add the silo's constant."""
    (state,) = message.content["arrays"].to_numpy_ndarrays()
    node = context.node_config
    state = state + state.dtype.type((int(node["partition-id"]) + 1) / int(node["num-partitions"]))
    content = {
        "arrays": ArrayRecord([state]),
        "metrics": MetricRecord({"num-examples": 1}),
    }
    return Message(content=RecordDict(content), reply_to=message)
