"""A job: a RunSpec with its names resolved to plugins and every parameter checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from fl_core import state as states
from fl_core.dataset import Dataset, Schema, Table
from fl_core.errors import (
    DataError,
    FlError,
    ParameterError,
    SpecError,
    UpdateError,
    nearest,
)
from fl_core.fields import field_error
from fl_core.files import inside
from fl_core.model import Model
from fl_core.plugins import Plugins, blamed
from fl_core.preprocessing import Parts, split
from fl_core.seeding import derive
from fl_core.spec import RunSpec
from fl_core.state import State
from fl_core.strategies import Strategy
from fl_core.yaml_file import SpecSource

T = TypeVar("T")
P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True)
class Job:
    """What a run is made of, ready to be used by one role."""

    spec: RunSpec
    dataset: Dataset
    schema: Schema
    model: Model
    strategy: Strategy

    def load(self, silo: str) -> Parts:
        """The silo's rows in their parts. Raises DataError."""
        data = self._data(silo)
        table = self.dataset.load(silo, data)
        try:
            return split(table, self.spec.split, silo)
        except DataError as error:
            if data is None:
                raise
            file = self.dataset.path(data)
            raise DataError(f"{file}: {error.message}", error.remedy) from error

    def _data(self, silo: str) -> str | None:
        """The path of the silo's data, if it has one. Raises DataError for one that may not be."""
        data = next(one.data for one in self.spec.silos if one.name == silo)
        if not (self.dataset.confined and self.dataset.takes_data):
            return data
        if data is None:
            return f"{silo}.csv"
        inside(self.dataset.folder, data)  # a dataset that joins paths by itself is held to it too
        return data


def resolve(
    spec: RunSpec,
    source: SpecSource,
    plugins: Plugins,
    folder: Path,
    own_data: Path | None = None,
) -> Job:
    """Resolve and check everything that needs no data.

    ``folder`` is where relative paths of the run file start. Where the run file came over the
    network, ``own_data`` takes its place: the silo's own folder, out of which no path may lead, and
    where its rows are SILO.csv unless the run file says otherwise.

    Raises PluginError for unknown names, ParameterError for parameters and combinations, SpecError
    for silos, DataError for the schema.
    """
    dataset_class = _located(source, "dataset", lambda: plugins.dataset(spec.dataset.name))
    model_class = _located(source, "model", lambda: plugins.model(spec.model.name))
    strategy_class = _located(source, "strategy", lambda: plugins.strategy(spec.strategy.name))
    if spec.strategy.name not in model_class.strategies:
        raise ParameterError(
            f"{source.where(['strategy', 'name'])}: model {spec.model.name!r} does not work with "
            f"strategy {spec.strategy.name!r}",
            f"use one of: {', '.join(model_class.strategies)}",
        )
    _check_silos(spec, source, dataset_class)
    dataset = dataset_class(
        _params(dataset_class.Params, spec, source, "dataset"),
        own_data or folder,
        confined=own_data is not None,
    )
    schema = dataset.schema()
    strategy = strategy_class(_params(strategy_class.Params, spec, source, "strategy"))
    _check_strategy(spec, source, strategy)
    return Job(
        spec,
        dataset,
        schema,
        model_class(_params(model_class.Params, spec, source, "model"), schema),
        strategy,
    )


def portable(spec: RunSpec, source: SpecSource, plugins: Plugins, folder: Path) -> RunSpec:
    """The spec with, in place of the files that it names beside itself, what these hold.

    Files of silos are not among them: each silo has its own. Raises PluginError for an unknown
    dataset, ParameterError for its parameters, DataError for a file that cannot be read.
    """
    dataset_class = _located(source, "dataset", lambda: plugins.dataset(spec.dataset.name))
    dataset = dataset_class(_params(dataset_class.Params, spec, source, "dataset"), folder)
    chosen = spec.dataset.model_copy(update={"params": dataset.portable()})
    return spec.model_copy(update={"dataset": chosen})


def _check_silos(spec: RunSpec, source: SpecSource, dataset: type[Dataset]) -> None:
    for silo in spec.silos:
        if dataset.silos and silo.name not in dataset.silos:
            raise SpecError(
                f"{source.silo(silo.name)}: dataset {spec.dataset.name!r} has no silo "
                f"{silo.name!r}",
                nearest(silo.name, list(dataset.silos)),
            )
        if silo.data is not None and not dataset.takes_data:
            raise SpecError(
                f"{source.silo(silo.name, 'data')}: dataset {spec.dataset.name!r} takes no "
                f"data path (value {silo.data!r})",
                "remove it, or use dataset 'csv' for files of your own",
            )


def _check_strategy(spec: RunSpec, source: SpecSource, strategy: Strategy) -> None:
    """Refuse a strategy that contradicts how the rounds are held."""
    where = source.where(["strategy", "name"])
    for field in ("asynchronous", "late_updates", "personalisation"):
        if getattr(spec, field) is not None and not strategy.same_form:
            raise ParameterError(
                f"{where}: strategy {spec.strategy.name!r} and {field} are given, but that takes "
                "updates that are states themselves, and those of this strategy are not",
                f"use a strategy that combines states, such as fedavg, or leave {field} out",
            )
    if strategy.least_updates > spec.min_silos:
        raise ParameterError(
            f"{where}: strategy {spec.strategy.name!r} needs {strategy.least_updates} updates with "
            f"these parameters, but a round may have {spec.min_silos} (quorum.min_silos)",
            f"write `quorum: {{min_silos: {strategy.least_updates}}}` or more, add silos, or lower "
            "the strategy's bound",
        )


def check_initial_state(job: Job, source: SpecSource) -> None:
    """Make the state that round 1 starts from, to see that it can travel.

    Raises ParameterError when it is over max_state_bytes, UpdateError when its arrays are of a kind
    that cannot travel, RoleError for whatever the model raises.
    """
    what = f"model {job.spec.model.name!r}"
    with blamed(f"{what} in initial_state"):
        state = job.model.initial_state(derive(job.spec.seed, "init"))
        size = len(states.laid_out(state))
    if size > job.spec.max_state_bytes:
        raise ParameterError(
            f"{source.where(['max_state_bytes'])}: the initial state of {what} has {size} bytes, "
            f"over the limit of {job.spec.max_state_bytes}",
            f"write `max_state_bytes: {size}` or more in the run file, or make the model smaller",
        )


def predicted(model: Model, state: State, table: Table, what: str) -> np.ndarray:
    """The model's scores: float64 of shape (n,), from 0 to 1. ``what`` names model and place.

    Raises RoleError for what the model raises, UpdateError for scores that are none.
    """
    with blamed(what):
        scores = np.asarray(model.predict(state, table), dtype=np.float64)
    if scores.shape != (len(table),) or not ((scores >= 0) & (scores <= 1)).all():
        raise UpdateError(
            f"{what}: gave an array of shape {list(scores.shape)} for {len(table)} rows, not that "
            "many numbers from 0 to 1",
            "for each row a probability must be predicted, never NaN: tell the plugin's author",
        )
    return scores


def model_of(spec: RunSpec, schema: Schema, plugins: Plugins) -> Model:
    """The model of a finished run. Raises PluginError, ParameterError."""
    model_class = plugins.model(spec.model.name)
    source = SpecSource("manifest.json", {})
    return model_class(_params(model_class.Params, spec, source, "model"), schema)


def _located(source: SpecSource, field: str, find: Callable[[], T]) -> T:
    """``find()``, with the place of ``field.name`` put before the message of its error."""
    try:
        return find()
    except FlError as error:
        raise type(error)(
            f"{source.where([field, 'name'])}: {error.message}", error.remedy
        ) from error


def _params(kind: type[P], spec: RunSpec, source: SpecSource, field: str) -> P:
    params = getattr(spec, field).params
    try:
        return kind.model_validate(params)
    except ValidationError as error:
        see = f"see `fl plugins` and the README of what `{field}.name` chooses"
        place = [field, "params"]
        raise field_error(error, params, source, ParameterError, kind, see, place) from error
