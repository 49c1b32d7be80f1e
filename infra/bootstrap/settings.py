"""The keys of a bootstrap stack's file."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from fl_core.fields import Strict, field_error
from infra.config import values
from infra.config.aws import AccountId, Region
from infra.config.common import AGGREGATOR, ConfigError, Label
from infra.config.keys import keys, where

SHORTEST_EXTERNAL_ID, LONGEST_EXTERNAL_ID = 16, 1224
_PRINCIPAL = re.compile(r"arn:aws:iam::\d{12}:(root|(role|user)/[\w+=,.@/-]{1,512})", re.ASCII)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]+", re.ASCII)
_SEE = "infra/bootstrap/README.md has every key"
_GENERATE = "openssl rand -hex 16 | pulumi config set --secret external_id"


def _is_principal(arn: str) -> str:
    if not _PRINCIPAL.fullmatch(arn):
        raise ValueError("must be an ARN such as arn:aws:iam::111122223333:role/NAME")
    return arn


Principal = Annotated[str, AfterValidator(_is_principal)]


class Settings(Strict):
    """One party's account, and who may deploy into it."""

    account: AccountId = Field(examples=["111122223333"])
    region: Region = Field(examples=["eu-central-1"])
    copies: tuple[Region, ...] = Field(default=(), max_length=20, examples=[["eu-west-1"]])
    """Other Regions that the aggregator's images are copied to."""
    federation: Label = Field(examples=["heart"])
    party: Label = Field(examples=["north"])
    trusted: tuple[Principal, ...] = Field(
        min_length=1, max_length=20, examples=[["arn:aws:iam::111122223333:role/NAME"]]
    )
    external_id: str | None = None
    hours: int = Field(default=2, ge=1, le=4, examples=[2])
    guardduty: bool = True

    @property
    def regions(self) -> list[str]:
        """Where anything may be made."""
        return sorted({self.region, *self.copies})

    @property
    def is_aggregator(self) -> bool:
        """Whether the registry, the artifacts and the endpoint service are made here."""
        return self.party == AGGREGATOR


def load() -> tuple[Settings, str]:
    """The settings and the external ID. Raises ConfigError, naming the key."""
    content = values.given(Settings)
    try:
        settings = Settings.model_validate(content)
    except ValidationError as error:
        raise field_error(error, content, keys(), ConfigError, Settings, _SEE) from error
    external_id = settings.external_id
    if external_id is None:
        raise ConfigError(f"{where(['external_id'])}: is missing", f"`{_GENERATE}`")
    # Its value stands in no message.
    if not (
        SHORTEST_EXTERNAL_ID <= len(external_id) <= LONGEST_EXTERNAL_ID
        and _EXTERNAL_ID.fullmatch(external_id)
    ):
        raise ConfigError(
            f"{where(['external_id'])}: must be {SHORTEST_EXTERNAL_ID} to {LONGEST_EXTERNAL_ID} "
            "letters, digits and characters of +=,.@:/-_",
            f"`{_GENERATE}`",
        )
    if settings.copies and not settings.is_aggregator:
        raise ConfigError(
            f"{where(['copies'])}: only the aggregator's images are copied to other Regions",
            "leave it out",
        )
    return settings, external_id
