"""The stack's file where everything runs on one cluster that is there already."""

from __future__ import annotations

import pulumi
from pydantic import Field

from fl_core.fields import Strict
from infra.config import values
from infra.config.common import Aggregator, ConfigError, Federation, Image, SiloName
from infra.config.keys import where

LOCAL = "local"
"""The stack whose image needs no digest: it is built and used on one machine."""


class Silo(Strict):
    """A silo and its own data."""

    name: SiloName = Field(examples=["north"])
    data: str = Field(min_length=1, max_length=2000, examples=["data/north.csv"])


class Config(Federation):
    """What a stack's file says under the project's name."""

    image: Image = Field(examples=["registry.example/fl-silos@sha256:DIGEST"])
    aggregator: Aggregator = Aggregator()
    silos: tuple[Silo, ...] = Field(
        min_length=1, max_length=1024, examples=[[{"name": "north", "data": "data/north.csv"}]]
    )
    kubeconfig: str | None = Field(
        default=None, min_length=1, max_length=4000, examples=["kubeconfig"]
    )
    context: str | None = Field(default=None, min_length=1, max_length=1000, examples=["kind-kind"])

    @property
    def host(self) -> Aggregator:
        """The aggregator."""
        return self.aggregator


def load() -> Config:
    """The stack's configuration. Raises ConfigError, naming the key."""
    config = values.checked(values.given(Config), Config)
    config.check([silo.name for silo in config.silos])
    if "@sha256:" not in config.image and pulumi.get_stack() != LOCAL:
        raise ConfigError(
            f"{where(['image'])}: {config.image!r} has no digest, and what a tag names may "
            f"change under a running federation",
            f"pin it: IMAGE@sha256:DIGEST; only the stack {LOCAL!r} may do without",
        )
    return config
