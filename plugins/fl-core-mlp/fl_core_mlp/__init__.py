"""A multilayer perceptron in PyTorch, as a model plugin of fl-core."""

from collections.abc import Callable

from fl_core.hookspecs import hookimpl
from fl_core.model import Model
from fl_core_mlp.model import MLP, MLPParams

__all__ = ["MLP", "MLPParams"]


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    """Offer the model ``mlp``."""
    register(MLP)
