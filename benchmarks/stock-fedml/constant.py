"""One role of the constant job on stock FedML: ``--cf CONFIG --rank R --role ROLE --run_id ID``.

The model is one array; a silo's training adds its constant to it. Runs in an environment of its
own (requirements.txt), nothing patched.
"""

# FedML types its hooks more narrowly than it calls them.
# pyright: reportIncompatibleMethodOverride=false, reportArgumentType=false

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import loopback  # before FedML

# isort: split
import fedml
import numpy as np
import torch
from fedml import FedMLRunner
from fedml.core import ClientTrainer, ServerAggregator


class Weights(torch.nn.Module):
    """One array."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(values, requires_grad=False)


class Trainer(ClientTrainer):
    """Adds a constant."""

    def __init__(self, model: Any, args: Any, constant: float) -> None:
        super().__init__(model, args)
        self.constant = constant

    def get_model_params(self) -> Any:
        """The array."""
        return self.model.state_dict()

    def set_model_params(self, model_parameters: Any) -> None:
        """Take an array over."""
        self.model.load_state_dict(model_parameters)

    def train(self, train_data: Any, device: Any, args: Any) -> None:
        """Add it."""
        self.model.weights += self.constant


class Aggregator(ServerAggregator):
    """FedML's weighted mean; nothing is scored. Writes times.json when a round's state stands."""

    def __init__(self, model: Any, args: Any) -> None:
        super().__init__(model, args)
        self.times: list[float] = []

    def get_model_params(self) -> Any:
        """The array."""
        return self.model.state_dict()

    def set_model_params(self, model_parameters: Any) -> None:
        """Take the mean over: the moment at which a round's state stands."""
        self.times.append(time.time())
        self.model.load_state_dict(model_parameters)
        found = {"aggregated": self.times, "head": self.model.weights[:8].tolist()}
        Path(self.args.job_folder, "times.json").write_text(json.dumps(found), encoding="utf-8")

    def test_all(self, *_: Any) -> bool:
        """Nothing."""
        return True

    def test(self, *_: Any) -> tuple[float, float, None, None]:
        """Nothing."""
        return 0.0, 0.0, None, None


def main() -> None:
    """Be the role that the arguments say."""
    args = fedml.init()
    folder = Path(args.job_folder)
    device = fedml.device.get_device(args)
    model = Weights(torch.from_numpy(np.load(folder / "initial.npy")))
    silos = args.client_num_in_total
    if args.rank == 0:
        aggregator = Aggregator(model, args)
        data = [0, 0, None, None, None, None, None, 2]
        FedMLRunner(args, device, data, model, None, aggregator).run()
        return
    loopback.wait_for_server(Path(args.grpc_ipconfig_path))
    one_row = {args.rank - 1: 1}
    data = [1, 0, None, None, one_row, dict.fromkeys(one_row), dict.fromkeys(range(silos)), 2]
    trainer = Trainer(model, args, args.rank / silos)
    FedMLRunner(args, device, data, model, trainer, None).run()


if __name__ == "__main__":
    main()
