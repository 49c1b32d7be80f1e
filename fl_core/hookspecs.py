"""Every hook that a plugin can implement.

A plugin is a distribution with an entry point in the group ``fl_core``; its module implements hooks
with ``@fl_core.hookspecs.hookimpl``. Hooks that take ``register`` are called once in each process
that loads plugins. The hooks around run, round and fit are called in role processes, in the order
of the distributions' names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from fl_core.dataset import Dataset
    from fl_core.model import FitContext, Model, Update
    from fl_core.spec import RunSpec
    from fl_core.strategies import Strategy
    from fl_core.tracking.contract import Tracker

PROJECT = "fl_core"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_models(register: Callable[[type[Model]], None]) -> None:
    """Offer models: call ``register`` with each Model class.

    Called by the plugin manager, in every process. If it raises, the plugin is left out and named
    with the error by ``fl plugins`` and by runs that do not find what they need. A name that two
    distributions register is refused for both.
    """


@hookspec
def register_strategies(register: Callable[[type[Strategy]], None]) -> None:
    """Offer strategies: call ``register`` with each Strategy class.

    Called by the plugin manager, in every process. If it raises, as for ``register_models``.
    """


@hookspec
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    """Offer datasets: call ``register`` with each Dataset class.

    Called by the plugin manager, in every process. If it raises, as for ``register_models``.
    """


@hookspec
def register_trackers(register: Callable[[type[Tracker]], None]) -> None:
    """Offer trackers: call ``register`` with each Tracker class.

    Called by the plugin manager, in every process; the trackers themselves are made and called in
    the process that delivers to them, never in a role's. If it raises, as for ``register_models``.
    """


@hookspec
def before_run(run_id: str, spec: RunSpec, role: str, silo: str | None) -> None:
    """A role is about to take part in a run; ``silo`` is None in the aggregator.

    Called by each role, once, before it connects. If it raises, the role fails, and with the
    aggregator the run; a silo is lost to it.
    """


@hookspec
def after_run(run_id: str, status: str, role: str, silo: str | None) -> None:
    """A role's part in a run has ended; ``status`` is completed or failed.

    Called by each role, once, also after a failure. If it raises, the role fails.
    """


@hookspec
def before_round(run_id: str, round: int) -> None:
    """A round is about to start, counted from 1; one that is begun anew, or repeated, once more.

    Called by the aggregator. If it raises, the run fails.
    """


@hookspec
def after_round(run_id: str, round: int, metrics: Mapping[str, float | None]) -> None:
    """A round's state has been aggregated and scored by its silos.

    ``metrics`` are the pooled ones by name; None where undefined. Called by the aggregator, when
    the silos' scores are in. If it raises, the run fails.
    """


@hookspec
def before_fit(run_id: str, context: FitContext, rows: int) -> None:
    """A silo is about to train on ``rows`` rows.

    Called by the silo role. If it raises, the silo has failed in this round.
    """


@hookspec
def after_fit(run_id: str, context: FitContext, update: Update) -> None:
    """A silo has trained; ``update`` is what it is about to send. It must not be changed.

    Called by the silo role. If it raises, the silo has failed in this round.
    """
