"""The model ``mlp``. PyTorch is imported by the first fit or prediction, not before: it is slow."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from fl_core.dataset import Schema, Table
from fl_core.errors import ParameterError
from fl_core.model import FitContext, Model, ModelParams, Update
from fl_core.state import State, check_same_form
from fl_core_mlp import control


class MLPParams(ModelParams):
    """Hyper-parameters of ``mlp``."""

    layers: tuple[Annotated[int, Field(ge=1, le=16384)], ...] = Field(
        (16,), max_length=16, description="widths of the hidden layers; [] is logistic regression"
    )
    learning_rate: float = Field(0.05, gt=0, le=10, description="step size of the optimiser")
    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        "sgd", description="started afresh in every round: its moments stay in no state"
    )
    weight_decay: float = Field(
        0.0, ge=0, le=1, description="L2 penalty; under adamw decoupled from the gradient"
    )
    local_epochs: int = Field(3, ge=1, le=10_000, description="passes over the rows in a round")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="rows in one step")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where to compute; auto takes a GPU if there is one"
    )


class MLP(Model):
    """Fully connected layers with ReLU between them, for a binary label.

    The state holds ``layers.I.weight`` (outputs, inputs) and ``layers.I.bias`` (outputs,), float32,
    as ``torch.nn.Linear`` has them.
    """

    name: ClassVar[str] = "mlp"
    Params: ClassVar[type[ModelParams]] = MLPParams
    strategies: ClassVar[tuple[str, ...]] = (
        "fedavg",
        "fedprox",
        "fedavgm",
        "fedadagrad",
        "fedadam",
        "fedyogi",
        "scaffold",
        "median",
        "trimmed-mean",
        "norm-clipping",
        "multi-krum",
    )
    preload: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(self, params: ModelParams, schema: Schema) -> None:
        super().__init__(params, schema)
        assert isinstance(params, MLPParams)
        self._params = params
        self._widths = (len(schema.features), *params.layers, 1)

    def initial_state(self, seed: int) -> State:
        """Weights and biases uniform in +-1/sqrt(inputs), as ``torch.nn.Linear`` draws them."""
        random = np.random.default_rng(seed)
        state: State = {}
        for name, form in self._form().items():
            inputs = self._widths[int(name.split(".")[1])]
            bound = 1 / np.sqrt(inputs)
            state[name] = random.uniform(-bound, bound, form.shape).astype(np.float32)
        return state

    def fit(self, state: State, table: Table, context: FitContext) -> Update:
        """Train for ``local_epochs``.

        With ``proximal_mu`` held near the anchor (fedprox), with ``control_variates`` corrected by
        them (scaffold). Raises UpdateError when the state is of another network, ParameterError
        when there is no such device, or the optimiser has no control variates.
        """
        anchor = state if context.anchor is None else context.anchor
        for arrays, what in ((state, "state"), (anchor, "anchor")):
            check_same_form(arrays, self._form(), f"{what} given to mlp")
        corrected = bool(context.strategy.get("control_variates"))
        own = self._own_control(context) if corrected else {}
        from fl_core_mlp import network

        trained, loss = network.train(
            state,
            table,
            self._params,
            context.seed,
            proximal_mu=float(context.strategy.get("proximal_mu", 0)),
            anchor=anchor,
            correction=control.correction(context.shared, own) if corrected else None,
        )
        metrics = {"loss": loss}
        if not corrected:
            return Update(trained, len(table), metrics)
        steps = self._params.local_epochs * -(-len(table) // self._params.batch_size)
        change = control.change(state, trained, context.shared, steps * self._params.learning_rate)
        memory = control.changed(own, change)
        return Update(trained, len(table), metrics, extra=change, memory=memory)

    def predict(self, state: State, table: Table) -> np.ndarray:
        """Probability of the positive class: float64 of shape (n,).

        Raises as :meth:`fit` does.
        """
        check_same_form(state, self._form(), "state given to mlp")
        from fl_core_mlp import network

        return network.probabilities(state, table.features, self._params.device)

    def _own_control(self, context: FitContext) -> State:
        """The silo's control variate; zero before its first fit."""
        if self._params.optimizer != "sgd":
            raise ParameterError(
                f"model.params.optimizer is {self._params.optimizer!r}, and scaffold's control "
                "variates are made of plain gradient steps",
                "use optimizer: sgd, or another strategy",
            )
        form = self._form()
        check_same_form(context.shared, form, "control variate given to mlp")
        if not context.memory:
            return {name: np.zeros(array.shape) for name, array in form.items()}
        like = {name: array.astype(np.float64) for name, array in form.items()}
        check_same_form(context.memory, like, "the silo's own control variate")
        return context.memory

    def _form(self) -> State:
        """Names, shapes and type of the state, in order, with no memory behind them."""
        zero = np.zeros((), dtype=np.float32)
        form: State = {}
        for i, (inputs, outputs) in enumerate(zip(self._widths, self._widths[1:], strict=False)):
            form[f"layers.{i}.weight"] = np.broadcast_to(zero, (outputs, inputs))
            form[f"layers.{i}.bias"] = np.broadcast_to(zero, (outputs,))
        return form
