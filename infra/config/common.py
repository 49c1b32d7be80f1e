"""What the stack `local` and the stacks on AWS have in common: amounts, names, services."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from fl_core.errors import FlError
from fl_core.fields import Strict
from fl_core.spec import RESERVED, SILO_NAME
from infra.config.keys import where

AGGREGATOR = "aggregator"
LONGEST_LABEL = 63
_IMAGE = re.compile(r"[a-z0-9][\w.:/-]{0,400}(@sha256:[0-9a-f]{64})?")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([\w.-]{0,100}[A-Za-z0-9])?", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
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
Image = Annotated[str, AfterValidator(_is_image)]
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


class Slots(Strict):
    """How many runs there are at once."""

    # The health port lies 40 above the control port, and runs have those between.
    slots: int = Field(default=1, ge=1, le=32, examples=[2])


class Aggregator(Slots):
    """The coordinator and its runs."""

    storage: Storage = Storage()
    resources: Resources = Resources()

    @property
    def all_resources(self) -> Resources:
        """With defaults."""
        return self.resources.over(_by_slots(self.slots))


class Agents(Strict):
    """The agents, one a silo."""

    scratch: Memory = Field(default="4Gi", examples=["20Gi"])
    resources: Resources = Resources()


class Federation(Strict):
    """What the services are made from, wherever they run."""

    federation: Label = Field(examples=["heart"])
    plugins: tuple[Annotated[str, AfterValidator(_is_distribution)], ...] = Field(
        default=("fl-core-mlp", "fl-core-xgboost"), min_length=1, max_length=100
    )
    agents: Agents = Agents()
    exclude: tuple[Annotated[str, AfterValidator(_is_excluded)], ...] = Field(
        default=(), max_length=1024, examples=[["north"]]
    )

    @property
    def host(self) -> Slots:
        """The aggregator, which each kind of stack knows more or less of."""
        raise NotImplementedError

    @property
    def agent_resources(self) -> Resources:
        """With defaults; an agent takes part in as many runs as the coordinator has."""
        return self.agents.resources.over(_by_slots(self.host.slots))

    def namespace(self, party: str) -> str:
        """The namespace of a silo, or of the aggregator."""
        return f"{self.federation}-{party}"

    def check(self, silos: Sequence[str]) -> None:
        """Raise ConfigError for what does not go together; ``silos``: their names, in order."""
        self._check_names(silos)
        default = _by_slots(self.host.slots)
        services: dict[str, Agents | Aggregator] = {"agents": self.agents}
        if isinstance(self.host, Aggregator):
            services["aggregator"] = self.host
        for name, service in services.items():
            try:
                service.resources.over(default)
            except ValueError as error:
                raise ConfigError(
                    f"{where([name, 'resources'])}: {error}",
                    f"set both; what is not set goes by aggregator.slots ({self.host.slots})",
                ) from error

    def _check_names(self, silos: Sequence[str]) -> None:
        longest = max([AGGREGATOR, *silos], key=len)
        if len(self.namespace(longest)) > LONGEST_LABEL:
            key = ["silos", silos.index(longest), "name"] if longest in silos else ["federation"]
            raise ConfigError(
                f"{where(key)}: the namespace {self.namespace(longest)!r} would have "
                f"{len(self.namespace(longest))} characters, and Kubernetes takes {LONGEST_LABEL}",
                f"shorten the silo's name or the federation's ({self.federation!r})",
            )
        seen: dict[str, int] = {}
        for i, name in enumerate(silos):
            if name in seen:
                raise ConfigError(
                    f"{where(['silos', i, 'name'])}: {name!r} is the name of "
                    f"silos[{seen[name]}] as well",
                    "give each silo a name of its own",
                )
            seen[name] = i
        for i, name in enumerate(self.exclude):
            if name in seen:
                raise ConfigError(
                    f"{where(['exclude', i])}: {name!r} is silos[{seen[name]}], whose agent "
                    "would be turned away for ever",
                    "take it out of one of the two",
                )
