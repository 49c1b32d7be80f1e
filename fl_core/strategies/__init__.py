"""Strategies that come with fl-core, one file each, and the contract of a strategy."""

from collections.abc import Callable

from fl_core.hookspecs import hookimpl
from fl_core.strategies.adaptive import FedAdagrad, FedAdam, FedYogi
from fl_core.strategies.bagging import Bagging
from fl_core.strategies.contract import Strategy, StrategyParams
from fl_core.strategies.cyclic import Cyclic
from fl_core.strategies.fedavg import FedAvg
from fl_core.strategies.fedavgm import FedAvgM
from fl_core.strategies.fedprox import FedProx
from fl_core.strategies.median import Median
from fl_core.strategies.multi_krum import MultiKrum
from fl_core.strategies.norm_clipping import NormClipping
from fl_core.strategies.scaffold import Scaffold
from fl_core.strategies.trimmed_mean import TrimmedMean

__all__ = ["Strategy", "StrategyParams"]

BUILT_IN: tuple[type[Strategy], ...] = (
    FedAvg,
    FedProx,
    FedAvgM,
    FedAdagrad,
    FedAdam,
    FedYogi,
    Scaffold,
    Median,
    TrimmedMean,
    NormClipping,
    MultiKrum,
    Bagging,
    Cyclic,
)


@hookimpl
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Offer the built-in strategies."""
    for strategy in BUILT_IN:
        register(strategy)
