"""Gradient-boosted trees by XGBoost, as a model plugin of fl-core."""

from collections.abc import Callable

from fl_core.hookspecs import hookimpl
from fl_core.model import Model
from fl_core_xgboost.model import Xgboost, XgboostParams

__all__ = ["Xgboost", "XgboostParams"]


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    """Offer the model ``xgboost``."""
    register(Xgboost)
