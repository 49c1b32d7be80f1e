"""One role of the heart-disease MLP job on stock FedML, its own gRPC backend and nothing changed.

Runs in an environment of its own (requirements.txt): ``job.py --cf CONFIG --rank R --role ROLE``.
The configuration names a folder with the job: job.json, init.npz, silo-I.npz and, for the
server, test.npz. The server writes times.json there.
"""

# FedML types its hooks more narrowly than it calls them.
# pyright: reportIncompatibleMethodOverride=false, reportArgumentType=false

from __future__ import annotations

import itertools
import json
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import loopback  # before FedML

# isort: split
import fedml
import numpy as np
import torch
from fedml import FedMLRunner
from fedml.core import ClientTrainer, ServerAggregator
from torch.nn import functional

Tensors = tuple[torch.Tensor, torch.Tensor]


class Network(torch.nn.Module):
    """Linear layers with ReLU between them and one logit."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        pairs = itertools.pairwise(widths)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(i, o) for i, o in pairs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """One logit a row."""
        hidden = inputs
        for i, layer in enumerate(self.layers):
            hidden = layer(functional.relu(hidden) if i else hidden)
        return hidden.squeeze(1)


class Trainer(ClientTrainer):
    """SGD over shuffled batches."""

    def get_model_params(self) -> Any:
        """The weights."""
        return self.model.state_dict()

    def set_model_params(self, model_parameters: Any) -> None:
        """Take weights over."""
        self.model.load_state_dict(model_parameters)

    def train(self, train_data: Any, device: Any, args: Any) -> None:
        """Some epochs."""
        features, labels = train_data
        optimizer = torch.optim.SGD(self.model.parameters(), lr=args.learning_rate)
        for _ in range(args.epochs):
            order = torch.randperm(len(labels))
            batches = zip(
                features[order].split(args.batch_size),
                labels[order].split(args.batch_size),
                strict=True,
            )
            for inputs, targets in batches:
                optimizer.zero_grad()
                logits = self.model(inputs)
                functional.binary_cross_entropy_with_logits(logits, targets).backward()
                optimizer.step()


class Aggregator(ServerAggregator):
    """FedML's weighted mean; each round's state is scored on the pooled test rows."""

    def __init__(self, model: Any, args: Any) -> None:
        super().__init__(model, args)
        self.times: list[float] = []
        self.auc: list[float] = []

    def get_model_params(self) -> Any:
        """The weights."""
        return self.model.state_dict()

    def set_model_params(self, model_parameters: Any) -> None:
        """Take the mean over: the moment at which a round's state stands."""
        self.times.append(time.time())
        self.model.load_state_dict(model_parameters)

    def test_all(self, *_: Any) -> bool:
        """Nothing: :meth:`test` has all test rows."""
        return True

    @torch.no_grad()
    def test(self, test_data: Any, device: Any, args: Any) -> tuple[float, float, None, None]:
        """AUC and accuracy."""
        features, labels = test_data
        scores = torch.sigmoid(self.model(features).double())
        positive, negative = scores[labels == 1], scores[labels == 0]
        wins = (positive[:, None] > negative).double() + (positive[:, None] == negative) / 2
        self.auc.append(float(wins.mean()))
        accuracy = float(((scores >= 0.5) == (labels == 1)).double().mean())
        return self.auc[-1], accuracy, None, None


def rows(path: Path) -> Tensors:
    """Features and labels of a file."""
    arrays = np.load(path)
    return torch.tensor(arrays["features"]), torch.tensor(arrays["labels"])


def model(folder: Path) -> Network:
    """The network with the weights that the job starts from."""
    arrays = np.load(folder / "init.npz")
    weights = [arrays[name] for name in arrays.files if name.endswith("weight")]
    network = Network([weights[0].shape[1], *(weight.shape[0] for weight in weights)])
    network.load_state_dict(OrderedDict((n, torch.tensor(arrays[n])) for n in arrays.files))
    return network


def main() -> None:
    """Be the role that the arguments say."""
    args = fedml.init()
    folder = Path(args.job_folder)
    device = fedml.device.get_device(args)
    network = model(folder)
    silos = args.client_num_in_total
    if args.rank == 0:
        aggregator = Aggregator(network, args)
        data = [0, 0, None, rows(folder / "test.npz"), None, None, None, 2]
        FedMLRunner(args, device, data, network, None, aggregator).run()
        found = {"aggregated": aggregator.times, "auc": aggregator.auc}
        (folder / "times.json").write_text(json.dumps(found), encoding="utf-8")
        return
    loopback.wait_for_server(Path(args.grpc_ipconfig_path))
    train = {i: rows(folder / f"silo-{i}.npz") for i in [args.rank - 1]}
    count = {i: len(labels) for i, (_, labels) in train.items()}
    test = dict.fromkeys(range(silos))
    data = [sum(count.values()), 0, None, None, count, train, test, 2]
    FedMLRunner(args, device, data, network, Trainer(network, args), None).run()


if __name__ == "__main__":
    main()
