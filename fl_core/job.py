"""A job: a RunSpec with its names resolved to plugins and every parameter checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fl_core.dataset import Dataset, Schema
from fl_core.errors import FlError, ParameterError, SpecError, nearest
from fl_core.model import Model
from fl_core.plugins import Plugins
from fl_core.preprocessing import Parts, split
from fl_core.spec import RunSpec, SpecSource, field_error
from fl_core.strategies import Strategy

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
        data = next(one.data for one in self.spec.silos if one.name == silo)
        return split(self.dataset.load(silo, data), self.spec.split, silo)


def resolve(spec: RunSpec, source: SpecSource, plugins: Plugins, folder: Path) -> Job:
    """Resolve and check everything that needs no data.

    ``folder`` is where relative paths of the run file start. Raises PluginError for unknown names,
    ParameterError for parameters and combinations, SpecError for silos, DataError for the schema.
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
    if dataset_class.silos:
        for i, silo in enumerate(spec.silos):
            if silo.name not in dataset_class.silos:
                raise SpecError(
                    f"{source.where(['silos', str(i)])}: dataset {spec.dataset.name!r} has no silo "
                    f"{silo.name!r}",
                    nearest(silo.name, list(dataset_class.silos)),
                )
    dataset = dataset_class(_params(dataset_class.Params, spec, source, "dataset"), folder)
    schema = dataset.schema()
    return Job(
        spec,
        dataset,
        schema,
        model_class(_params(model_class.Params, spec, source, "model"), schema),
        strategy_class(_params(strategy_class.Params, spec, source, "strategy")),
    )


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
    try:
        return kind.model_validate(getattr(spec, field).params)
    except ValidationError as error:
        raise field_error(error, source, [field, "params"], ParameterError, kind) from error
