"""Strategies that come with fl-core, one file each, and the contract of a strategy."""

from collections.abc import Callable

from fl_core.hookspecs import hookimpl
from fl_core.strategies.bagging import Bagging
from fl_core.strategies.contract import Strategy, StrategyParams
from fl_core.strategies.cyclic import Cyclic
from fl_core.strategies.fedavg import FedAvg
from fl_core.strategies.fedprox import FedProx

__all__ = ["Strategy", "StrategyParams"]


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Offer the built-in strategies."""
    for strategy in (FedAvg, FedProx, Bagging, Cyclic):
        register(strategy)
