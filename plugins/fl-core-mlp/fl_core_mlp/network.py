"""The network's arithmetic in PyTorch.

Optimisers are PyTorch's functional ones: the constructors of their classes import
``torch._dynamo``, which takes seconds and 100 MB that a small fit would pay for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from fl_core.dataset import Table
from fl_core.errors import ParameterError
from fl_core.state import State

if TYPE_CHECKING:
    from fl_core_mlp.model import MLPParams

_ROWS_AT_ONCE = 65536
Tensors = list[torch.Tensor]


def train(
    state: State,
    table: Table,
    params: MLPParams,
    seed: int,
    *,
    proximal_mu: float,
    anchor: State,
    correction: State | None,
) -> tuple[State, float]:
    """The trained state, and the mean log loss over all rows and epochs, as they were seen.

    With ``proximal_mu`` the objective has mu/2 times the squared distance from ``anchor`` (FedProx,
    https://arxiv.org/abs/1812.06127); the loss that is given back is without it. ``correction`` is
    added to each gradient.
    """
    device = _device(params.device)
    weights = _tensors(state, device)
    middle = _tensors(anchor, device) if proximal_mu else []
    corrections = _tensors(correction, device) if correction else []
    for tensor in weights:
        tensor.requires_grad_()
    features = torch.tensor(table.features, dtype=torch.float32, device=device)
    labels = torch.tensor(table.labels, dtype=torch.float32, device=device)
    step = _optimizer(params, weights)
    order = torch.Generator().manual_seed(seed)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for _ in range(params.local_epochs):
        shuffled = torch.randperm(len(table), generator=order).to(device)
        batches = zip(
            features[shuffled].split(params.batch_size),
            labels[shuffled].split(params.batch_size),
            strict=True,
        )
        for inputs, targets in batches:
            logits = _logits(weights, inputs)
            loss = functional.binary_cross_entropy_with_logits(logits, targets)
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                if proximal_mu:
                    for gradient, now, then in zip(gradients, weights, middle, strict=True):
                        gradient.add_(now - then, alpha=proximal_mu)
                if correction:
                    for gradient, added in zip(gradients, corrections, strict=True):
                        gradient.add_(added)
                step(list(gradients))
                total += loss * len(targets)
    trained = {
        name: tensor.detach().cpu().numpy()
        for name, tensor in zip(_names(len(weights)), weights, strict=True)
    }
    return trained, float(total) / (len(table) * params.local_epochs)


@torch.no_grad()
def probabilities(state: State, features: np.ndarray, device: str) -> np.ndarray:
    """Probability of the positive class for each row of ``features`` (n, d): float64 (n,)."""
    where = _device(device)
    weights = _tensors(state, where)
    result = np.empty(len(features), dtype=np.float64)
    for first in range(0, len(features), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        inputs = torch.tensor(features[rows], dtype=torch.float32, device=where)
        result[rows] = torch.sigmoid(_logits(weights, inputs).double()).cpu().numpy()
    return result


def _device(name: str) -> torch.device:
    if name == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if name == "cuda":
        raise ParameterError(
            "model.params.device is 'cuda', and PyTorch finds no GPU on this machine",
            "use device: auto or cpu, or install a driver and a CUDA build of PyTorch",
        )
    return torch.device("cpu")


def _optimizer(params: MLPParams, weights: Tensors) -> Callable[[Tensors], None]:
    """A function that changes ``weights``, in place, by one step along their gradients."""
    rate, decay = params.learning_rate, params.weight_decay
    if params.optimizer == "sgd":

        def descend(gradients: Tensors) -> None:
            sgd(
                weights,
                gradients,
                [None] * len(weights),
                foreach=False,
                weight_decay=decay,
                momentum=0.0,
                lr=rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )

        return descend

    function = adam if params.optimizer == "adam" else adamw
    means = [torch.zeros_like(tensor) for tensor in weights]
    squares = [torch.zeros_like(tensor) for tensor in weights]
    steps = [torch.zeros(()) for _ in weights]

    def adapt(gradients: Tensors) -> None:
        function(
            weights,
            gradients,
            means,
            squares,
            [],
            steps,
            foreach=False,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=decay,
            eps=1e-8,
            maximize=False,
        )

    return adapt


def _logits(weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
    hidden = inputs
    for i in range(0, len(weights), 2):
        if i:
            hidden = functional.relu(hidden)
        hidden = functional.linear(hidden, weights[i], weights[i + 1])
    return hidden.squeeze(1)


def _names(count: int) -> list[str]:
    return [f"layers.{i}.{kind}" for i in range(count // 2) for kind in ("weight", "bias")]


def _tensors(state: State, device: torch.device) -> Tensors:
    """Copies of the state's arrays on ``device``, each layer's weight before its bias."""
    return [torch.tensor(state[name], device=device) for name in _names(len(state))]
