"""A stack's configuration: typed, and checked as a whole before any resource is registered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from fl_core.errors import FlError
from fl_core.fields import Strict, field_error
from fl_core.spec import RESERVED, SILO_NAME
from fl_core.yaml_file import SpecSource

LOCAL = "local"
"""The stack whose image needs no digest: it is built and used on one machine."""
AGGREGATOR = "aggregator"
SEE = "infra/README.md has every key"
LONGEST_LABEL = 63
_IMAGE = re.compile(r"[a-z0-9][\w.:/-]{0,400}(@sha256:[0-9a-f]{64})?")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([\w.-]{0,100}[A-Za-z0-9])?", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_TEXT = (str, str | None)
_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)([A-Za-z]{0,2})")
_CPU_UNITS = {"": Decimal(1), "m": Decimal("0.001")}
_BYTE_UNITS = {
    "": Decimal(1),
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGT", start=1)},
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGT", start=1)},
}


class ConfigError(FlError):
    """A configuration value that is missing, unknown, out of bounds, or does not fit another."""

    title = "configuration"


def _quantity(text: str, units: Mapping[str, Decimal]) -> Decimal:
    """A Kubernetes quantity as a number. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise ValueError(f"must be a number, alone or with one of the units {known}")
    return Decimal(match[1]) * units[match[2]]


def cores(text: str) -> Decimal:
    """An amount of CPU such as ``500m`` or ``2``, in cores. Raises ValueError."""
    return _quantity(text, _CPU_UNITS)


def octets(text: str) -> Decimal:
    """An amount of memory or storage such as ``2Gi``, in bytes. Raises ValueError."""
    return _quantity(text, _BYTE_UNITS)


def _number_as_text(value: Any) -> Any:
    """YAML and JSON read ``cpu: 2`` as a number."""
    return str(value) if type(value) in (int, float) else value


def _is_cpu(text: str) -> str:
    if not Decimal("0.01") <= cores(text) <= 512:
        raise ValueError("must be between 10m and 512")
    return text


def _is_memory(text: str) -> str:
    if not octets("32Mi") <= octets(text) <= octets("16Ti"):
        raise ValueError("must be between 32Mi and 16Ti")
    return text


def _is_label(name: str) -> str:
    if not SILO_NAME.fullmatch(name):
        raise ValueError(
            "use lower-case letters, digits and hyphens, at most 63, no hyphen at either end"
        )
    return name


def _is_silo(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is the name of something else: choose another")
    return _is_label(name)


def _is_excluded(whom: str) -> str:
    if not _FINGERPRINT.fullmatch(whom) and (whom in RESERVED or not SILO_NAME.fullmatch(whom)):
        raise ValueError(
            "must be a silo's name or a certificate's SHA-256, 64 lower-case hexadecimal digits"
        )
    return whom


def _is_image(reference: str) -> str:
    if not _IMAGE.fullmatch(reference):
        raise ValueError("must be an image such as registry.example/fl-silos@sha256:DIGEST")
    return reference


def _is_distribution(name: str) -> str:
    if not _DISTRIBUTION.fullmatch(name):
        raise ValueError("must be the name of a plugin's distribution, as `fl plugins` lists it")
    return name


Cpu = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_is_cpu)]
Memory = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_is_memory)]
Label = Annotated[str, AfterValidator(_is_label)]
SiloName = Annotated[str, AfterValidator(_is_silo)]


class Amounts(Strict):
    """CPU and memory of a container; what is left out is the default of its kind."""

    cpu: Cpu | None = Field(default=None, examples=["500m"])
    memory: Memory | None = Field(default=None, examples=["2Gi"])

    def over(self, default: Amounts) -> Amounts:
        """These, and the default's where there is none."""
        return Amounts(cpu=self.cpu or default.cpu, memory=self.memory or default.memory)

    def as_dict(self) -> dict[str, str]:
        """As Kubernetes has it."""
        return self.model_dump(exclude_none=True)


class Resources(Strict):
    """What a container is sure of (requests) and what it may use (limits)."""

    requests: Amounts = Amounts()
    limits: Amounts = Amounts()

    def over(self, default: Resources) -> Resources:
        """These over the default's. Raises ValueError for a request above its limit."""
        merged = Resources(
            requests=self.requests.over(default.requests), limits=self.limits.over(default.limits)
        )
        for name, amount in (("cpu", cores), ("memory", octets)):
            request, limit = (
                getattr(amounts, name) or "0" for amounts in (merged.requests, merged.limits)
            )
            if amount(request) > amount(limit):
                raise ValueError(f"the request of {name} ({request}) is over its limit ({limit})")
        return merged


def _by_slots(slots: int) -> Resources:
    """The default of a coordinator or an agent, which may have ``slots`` runs at once.

    It has 300 MB at most by itself, and a run adds up to a core and 700 MB.
    """
    mebibytes = 512 + 512 * slots
    # As Kubernetes writes it, which otherwise gives back another text than it was given.
    memory = f"{mebibytes}Mi" if mebibytes % 1024 else f"{mebibytes // 1024}Gi"
    return Resources(
        requests=Amounts(cpu="100m", memory=memory),
        limits=Amounts(cpu=str(1 + slots), memory=f"{1 + slots}Gi"),
    )


class Storage(Strict):
    """The volume of the coordinator: its queue, its history and the folders of its runs."""

    size: Memory = "4Gi"
    class_: str | None = Field(
        default=None, alias="class", min_length=1, max_length=253, examples=["standard"]
    )


class Aggregator(Strict):
    """The coordinator and its runs."""

    # The health port lies 40 above the control port, and runs have those between.
    slots: int = Field(default=1, ge=1, le=32, examples=[2])
    storage: Storage = Storage()
    resources: Resources = Resources()


class Agents(Strict):
    """The agents, one a silo."""

    scratch: Memory = Field(default="4Gi", examples=["20Gi"])
    resources: Resources = Resources()


class Silo(Strict):
    """A silo and its own data."""

    name: SiloName = Field(examples=["north"])
    data: str = Field(min_length=1, max_length=2000, examples=["data/north.csv"])


class Config(Strict):
    """What a stack's file says under the project's name."""

    federation: Label = Field(examples=["heart"])
    image: Annotated[str, AfterValidator(_is_image)] = Field(
        examples=["registry.example/fl-silos@sha256:DIGEST"]
    )
    silos: tuple[Silo, ...] = Field(
        min_length=1, max_length=1024, examples=[[{"name": "north", "data": "data/north.csv"}]]
    )
    plugins: tuple[Annotated[str, AfterValidator(_is_distribution)], ...] = Field(
        default=("fl-core-mlp", "fl-core-xgboost"), min_length=1, max_length=100
    )
    aggregator: Aggregator = Aggregator()
    agents: Agents = Agents()
    exclude: tuple[Annotated[str, AfterValidator(_is_excluded)], ...] = Field(
        default=(), max_length=1024, examples=[["north"]]
    )
    kubeconfig: str | None = Field(
        default=None, min_length=1, max_length=4000, examples=["kubeconfig"]
    )
    context: str | None = Field(default=None, min_length=1, max_length=1000, examples=["kind-kind"])

    @property
    def aggregator_resources(self) -> Resources:
        """With defaults."""
        return self.aggregator.resources.over(_by_slots(self.aggregator.slots))

    @property
    def agent_resources(self) -> Resources:
        """With defaults; an agent takes part in as many runs as the coordinator has."""
        return self.agents.resources.over(_by_slots(self.aggregator.slots))

    def namespace(self, party: str) -> str:
        """The namespace of a silo, or of the aggregator."""
        return f"{self.federation}-{party}"


@dataclass(frozen=True)
class Keys(SpecSource):
    """Names a field as ``pulumi config set --path`` does: ``fl-silos:silos[0].name``."""

    def where(self, path: Sequence[str | int]) -> str:
        """The key of the field at ``path``."""
        name = "".join(f"[{part}]" if str(part).isdigit() else f".{part}" for part in path)
        return f"{self.file}:{name.removeprefix('.')}"


def keys() -> Keys:
    """The names of this project's keys."""
    return Keys(pulumi.get_project(), {})


def load() -> Config:
    """The stack's configuration. Raises ConfigError, naming the key."""
    content = _given()
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise field_error(error, content, keys(), ConfigError, Config, SEE) from error
    _check_names(config)
    _check_resources(config)
    if "@sha256:" not in config.image and pulumi.get_stack() != LOCAL:
        raise ConfigError(
            f"{keys().where(['image'])}: {config.image!r} has no digest, and what a tag names may "
            f"change under a running federation",
            f"pin it: IMAGE@sha256:DIGEST; only the stack {LOCAL!r} may do without",
        )
    return config


def _given() -> dict[str, Any]:
    """The values as they stand in the stack's file."""
    project = pulumi.Config()
    prefix = f"{project.name}:"
    # pulumi.Config looks up one key and lists none, but a misspelt key must not go unseen.
    listed = {
        key.removeprefix(prefix)
        for key in {**get_config_env(), **CONFIG.get()}
        if key.startswith(prefix)
    }
    values = {name: project.get(name) for name in {*listed, *Config.model_fields}}
    plain = {name for name, field in Config.model_fields.items() if field.annotation in _TEXT}
    return {
        name: value if name in plain else _parsed(value)
        for name, value in sorted(values.items())
        if value is not None
    }


def _parsed(text: str) -> Any:
    """What is not one value comes as JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check_names(config: Config) -> None:
    """Raise ConfigError for names that do not go together."""
    longest = max([AGGREGATOR, *(silo.name for silo in config.silos)], key=len)
    if len(config.namespace(longest)) > LONGEST_LABEL:
        key = ["federation"]
        for i, silo in enumerate(config.silos):
            if silo.name == longest:
                key = ["silos", str(i), "name"]
        raise ConfigError(
            f"{keys().where(key)}: the namespace {config.namespace(longest)!r} would have "
            f"{len(config.namespace(longest))} characters, and Kubernetes takes {LONGEST_LABEL}",
            f"shorten the silo's name or the federation's ({config.federation!r})",
        )
    seen: dict[str, int] = {}
    for i, silo in enumerate(config.silos):
        if silo.name in seen:
            raise ConfigError(
                f"{keys().where(['silos', i, 'name'])}: {silo.name!r} is the name of "
                f"silos[{seen[silo.name]}] as well",
                "give each silo a name of its own",
            )
        seen[silo.name] = i
    for i, name in enumerate(config.exclude):
        if name in seen:
            raise ConfigError(
                f"{keys().where(['exclude', i])}: {name!r} is silos[{seen[name]}], whose agent "
                "would be turned away for ever",
                "take it out of one of the two",
            )


def _check_resources(config: Config) -> None:
    """Raise ConfigError for a request above its limit, once the defaults are there."""
    default = _by_slots(config.aggregator.slots)
    for name, service in (("aggregator", config.aggregator), ("agents", config.agents)):
        try:
            service.resources.over(default)
        except ValueError as error:
            raise ConfigError(
                f"{keys().where([name, 'resources'])}: {error}",
                f"set both; what is not set goes by aggregator.slots ({config.aggregator.slots})",
            ) from error
