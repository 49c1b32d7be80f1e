"""RunSpec: the description of one federated training, as a YAML file holds it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from fl_core import yaml_file
from fl_core.errors import SpecError
from fl_core.fields import Strict, field_error
from fl_core.preprocessing import SplitSpec
from fl_core.rules import Asynchronous, EarlyStopping, LateUpdates, Personalisation, Quorum
from fl_core.yaml_file import SpecSource

SEE = "`fl spec schema` prints every field with its bounds"
RUN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SILO_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label, since a silo's name is also a Kubernetes name and part of a certificate's URI."""
RESERVED = {"aggregator", "pooled"}


class Choice(Strict):
    """A model, strategy or dataset by name, with its parameters."""

    name: str = Field(min_length=1, description="as `fl plugins` or `fl datasets` lists it")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters; see its README")


class SiloSpec(Strict):
    """One silo of a run. A plain name stands for a silo without a path."""

    name: str = Field(description="lower-case letters, digits and hyphens; at most 63")
    data: str | None = Field(None, description="path of the silo's data, if the dataset takes one")

    @field_validator("name")
    @classmethod
    def _is_label(cls, name: str) -> str:
        if not SILO_NAME.fullmatch(name):
            raise ValueError("use lower-case letters, digits and hyphens, at most 63")
        if name in RESERVED:
            raise ValueError(f"{name!r} is the name of something else in every run")
        return name

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, silo: Any) -> Any:
        if isinstance(silo, str):
            return {"name": silo}
        if not isinstance(silo, (dict, SiloSpec)):
            raise ValueError("must be a silo's name, or a mapping of name and data")
        return silo


class RunSpec(Strict):
    """One federated training."""

    name: str = Field(
        "run",
        description="starts the run's id",
        json_schema_extra={"pattern": f"^{RUN_NAME.pattern}$"},
    )
    dataset: Choice = Field(examples=[{"name": "heart-disease"}])
    silos: tuple[SiloSpec, ...] = Field(
        min_length=1, max_length=1024, examples=[["north", "south"]]
    )
    model: Choice = Field(examples=[{"name": "mlp"}])
    strategy: Choice = Field(examples=[{"name": "fedavg"}])
    rounds: int = Field(ge=1, le=100_000, description="rounds of training", examples=[20])
    quorum: Quorum = Field(
        default_factory=lambda: Quorum.model_validate({}),
        description="how many silos a round needs, and how long it waits",
        examples=[{"min_silos": 3, "deadline": "120s", "grace": "5s"}],
    )
    fraction: float = Field(
        1.0, gt=0, le=1, description="share of the silos that train in a round, drawn by the seed"
    )
    late_updates: LateUpdates | None = Field(
        None,
        description="how updates count that come after their round; dropped when left out",
        examples=[{"exponent": 0.5, "most": 10}],
    )
    asynchronous: Asynchronous | None = Field(
        None,
        description="a new state for every so many updates, instead of rounds",
        examples=[{"buffer": 2}],
    )
    early_stopping: EarlyStopping | None = Field(
        None,
        description="end when validation gets no better",
        examples=[{"metric": "auc", "patience": 5}],
    )
    keep_best: Literal["auc", "loss"] | None = Field(
        None, description="the model is the state with the best such value on validation rows"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="all reproducible randomness comes from it")
    split: SplitSpec = Field(
        default_factory=lambda: SplitSpec.model_validate({}), examples=[{"test": 0.3}]
    )
    max_state_bytes: int = Field(
        256 * 1024 * 1024, ge=1024, le=2**40, description="largest state or update that is taken"
    )

    personalisation: Personalisation | None = Field(
        None,
        description="a model of its own for each silo, beside the global one",
        examples=[{"method": "ditto"}],
    )

    @field_validator("name")
    @classmethod
    def _starts_an_id(cls, name: str) -> str:
        if not RUN_NAME.fullmatch(name):
            raise ValueError("use lower-case letters, digits and hyphens, at most 63")
        return name

    @field_validator("silos")
    @classmethod
    def _distinct(cls, silos: tuple[SiloSpec, ...]) -> tuple[SiloSpec, ...]:
        names = [silo.name for silo in silos]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"silo {twice[0]!r} stands twice")
        return silos

    @model_validator(mode="after")
    def _agrees(self) -> RunSpec:
        """Refuse fields that contradict each other, naming both."""
        silos, wanted = len(self.silos), self.quorum.min_silos
        if wanted is not None and wanted > silos:
            raise ValueError(f"quorum.min_silos is {wanted}, but silos has {silos}")
        if self.quorum.grace is not None and self.quorum.grace > self.quorum.deadline:
            raise ValueError(
                f"quorum.grace is {self.quorum.grace:g} s, over quorum.deadline, "
                f"{self.quorum.deadline:g} s"
            )
        if self.quorum.retries is not None and self.quorum.below != "retry":
            raise ValueError(
                f"quorum.retries is given, but quorum.below is {self.quorum.below!r}, not 'retry'"
            )
        if self.drawn < (wanted or 1):
            raise ValueError(
                f"fraction {self.fraction:g} draws {self.drawn} of {silos} silos, but "
                f"quorum.min_silos is {wanted}"
            )
        if self.asynchronous is not None:
            if self.asynchronous.buffer > silos:
                raise ValueError(
                    f"asynchronous.buffer is {self.asynchronous.buffer}, but silos has {silos}"
                )
            for field, both in (
                ("late_updates", self.late_updates is not None),
                ("fraction", self.fraction != 1),
                ("quorum.min_silos", wanted is not None),
                ("quorum.grace", self.quorum.grace is not None),
                ("quorum.below: retry", self.quorum.below == "retry"),
            ):
                if both:
                    raise ValueError(
                        f"asynchronous and {field} are given: an asynchronous run takes updates "
                        "as they come"
                    )
        for field in ("early_stopping", "keep_best"):
            if getattr(self, field) is not None and self.split.validation == 0:
                raise ValueError(f"{field} needs validation rows, but split.validation is 0")
        return self

    @property
    def staleness(self) -> LateUpdates | None:
        """How updates count that come after their round; None: not at all."""
        return self.asynchronous or self.late_updates

    @property
    def most_late(self) -> int:
        """By how many rounds an update may be late and still count."""
        return 0 if self.staleness is None else self.staleness.most

    @property
    def retries(self) -> int:
        """How often a round is begun anew."""
        return 3 if self.quorum.retries is None else self.quorum.retries

    @property
    def drawn(self) -> int:
        """How many silos train in a round, when all are there."""
        return math.ceil(self.fraction * len(self.silos) - 1e-9)

    @property
    def min_silos(self) -> int:
        """How many silos must answer in a round."""
        if self.asynchronous is not None:
            return self.asynchronous.buffer
        return self.drawn if self.quorum.min_silos is None else self.quorum.min_silos

    @property
    def silo_names(self) -> tuple[str, ...]:
        """The silos' names, sorted: the order in which everything is combined."""
        return tuple(sorted(silo.name for silo in self.silos))


def load(
    path: Path, settings: Sequence[str] = (), seed: int | None = None
) -> tuple[RunSpec, SpecSource]:
    """Read a run file, with ``path=value`` settings and a seed laid over it.

    Raises SpecError naming file, line, field and value.
    """
    content, source = yaml_file.read(path, SpecError, "run file", "see examples/")
    overrides = {}
    for setting in settings:
        field = _override(content, setting)
        overrides[field] = f"--set {field}"
    if seed is not None:
        content["seed"] = seed
        overrides["seed"] = "--seed"
    source = dataclasses.replace(source, overrides=overrides)
    try:
        spec = RunSpec.model_validate(content)
    except ValidationError as error:
        raise field_error(error, content, source, SpecError, RunSpec, SEE) from error
    return spec, dataclasses.replace(source, silos=[silo.name for silo in spec.silos])


def schema() -> dict[str, Any]:
    """The JSON schema of a run file."""
    return RunSpec.model_json_schema()


def _override(content: dict[str, Any], setting: str) -> str:
    """Lay one ``path=value`` over ``content``; gives back the path."""
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise SpecError(f"--set {setting}: is not path=value", "e.g. --set rounds=5")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, *yaml_file.CONSTRUCTOR_ERRORS) as error:
        raise SpecError(f"--set {setting}: value is not YAML", "quote it") from error
    target: Any = content
    parts = path.split(".")
    for part in parts[:-1]:
        if isinstance(target, list) and part.isdigit() and int(part) < len(target):
            target = target[int(part)]
        elif isinstance(target, dict):
            target = target.setdefault(part, {})
        else:
            raise SpecError(f"--set {setting}: {part!r} leads nowhere", "`fl spec schema`")
    last = parts[-1]
    if isinstance(target, dict):
        target[last] = value
    elif isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = value
    else:
        raise SpecError(f"--set {setting}: {path!r} leads nowhere", "`fl spec schema`")
    return path


def as_message(spec: RunSpec) -> str:
    """The spec as JSON that means the same elsewhere, in the order in which it was written.

    Raises SpecError for values that JSON does not have.
    """
    try:
        return json.dumps(spec.model_dump(), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError(
            f"the run file holds a value that cannot be sent: {error}",
            "write plain text, finite numbers, lists and mappings; quote dates",
        ) from error


def as_json(spec: RunSpec) -> str:
    """The spec in a form that is equal for equal specs."""
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True)
