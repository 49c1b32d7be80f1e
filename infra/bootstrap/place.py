"""Where the deployer may make things, and what they are called: policies are about those alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infra.accounts import BOUNDARY, PATH
from infra.bootstrap.settings import Settings
from infra.config.aws import DEPLOYER

TAG = "fl-silos:federation"
"""Every stack tags all that it makes."""
_KEPT = 40
"""Of a party's name; a longer one is cut where AWS has no room for it."""
Condition = dict[str, dict[str, Any]]


def actions(service: str, names: str) -> list[str]:
    """Actions of a service, by their names."""
    return [f"{service}:{name}" for name in names.split()]


@dataclass(frozen=True)
class Place:
    """An account as the policies name it."""

    settings: Settings

    def arn(self, service: str, resource: str) -> str:
        """Resources of the account, in whichever Region."""
        return f"arn:aws:{service}:*:{self.settings.account}:{resource}"

    def everywhere(self, service: str, resource: str) -> str:
        """Resources of the account in a service that has no Regions."""
        return f"arn:aws:{service}::{self.settings.account}:{resource}"

    @property
    def names(self) -> str:
        """What Pulumi calls the party's resources."""
        party = self.settings.party
        return f"{party}-*" if len(party) <= _KEPT else f"{party[:_KEPT]}*"

    @property
    def clusters(self) -> str:
        """What the party's cluster is called, and what is called after it."""
        return f"{self.settings.federation}-{self.settings.party}-*"

    @property
    def deployers(self) -> list[str]:
        """The roles that the deployer must not change: its own."""
        role = self.everywhere("iam", f"role/{DEPLOYER}")
        return [role, f"{role}-kubernetes"]

    @property
    def boundary(self) -> str:
        """The most that a role made by the deployer may do."""
        return self.everywhere("iam", f"policy/{BOUNDARY}")

    @property
    def roles(self) -> str:
        """The party's roles."""
        return self.everywhere("iam", f"role{PATH}{self.names}")

    def here(self, **equal: Any) -> dict[str, Condition]:
        """A statement's condition: in the party's Regions, and ``equal``."""
        where = {"aws:RequestedRegion": self.settings.regions}
        return {"Condition": {"StringEquals": {**where, **equal}}}

    def tagging(self) -> dict[str, Condition]:
        """What is made is tagged as the federation's."""
        return self.here(**{f"aws:RequestTag/{TAG}": self.settings.federation})

    def tagged(self) -> dict[str, Condition]:
        """What is changed is tagged as the federation's."""
        return self.here(**{f"aws:ResourceTag/{TAG}": self.settings.federation})
