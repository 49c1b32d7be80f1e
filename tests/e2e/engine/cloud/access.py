"""Who a provider is in the make-believe cloud: its account, its Region, its default tags.

Part of a test double.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.engine.errors import EngineError
from tests.e2e.engine.properties import has_unknown

from .kinds import Refused, as_list
from .store import Properties, Transaction

CALLER = "999999999999"
"""The account of whoever runs the program, unless E2E_CLOUD_CALLER says another."""
ARN_PARTS = 6
NOT_KNOWN = "(not known yet)"


@dataclass(frozen=True)
class Access:
    """What a provider was configured for."""

    account: str = NOT_KNOWN
    region: str = NOT_KNOWN
    role: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def within(self, properties: Properties) -> tuple[str, str]:
        """The account and Region of a resource, which may name a Region of its own."""
        if self.account == NOT_KNOWN:
            raise EngineError("the provider's configuration is not known")
        return self.account, str(properties.get("region", self.region))

    def call(self, token: str) -> Properties:
        """The functions that this double knows."""
        arn = self.role or f"arn:aws:iam::{self.account}:user/caller"
        answers: dict[str, Properties] = {
            "aws:index/getPartition:getPartition": {
                "id": "aws",
                "partition": "aws",
                "dnsSuffix": "amazonaws.com",
                "reverseDnsPrefix": "com.amazonaws",
            },
            "aws:index/getRegion:getRegion": {
                "id": self.region,
                "region": self.region,
                "name": self.region,
                "endpoint": f"ec2.{self.region}.amazonaws.com",
            },
            "aws:index/getCallerIdentity:getCallerIdentity": {
                "id": self.account,
                "accountId": self.account,
                "arn": arn,
                "userId": "AIDAEXAMPLE",
            },
        }
        if token not in answers:
            raise EngineError(f"this test double knows no function {token}")
        return answers[token]


def configured(cloud: Transaction, config: Properties) -> Access:
    """The access that a configuration gives. Raises Refused as the real provider fails."""
    values = {key: _parsed(value) for key, value in config.items()}
    account, role = os.environ.get("E2E_CLOUD_CALLER", CALLER), ""
    region = values.get("region") or os.environ.get("AWS_REGION")
    roles = values.get("assumeRoles")
    if has_unknown(roles) or has_unknown(region):
        return Access()
    if not region:
        raise Refused("InvalidConfiguration", "missing required configuration key aws:region")
    for entry in as_list(roles):
        role = str(entry.get("roleArn", ""))
        account = _assumed(cloud, role, entry.get("externalId"))
    allowed = as_list(values.get("allowedAccountIds"))
    if allowed and account not in allowed:
        raise Refused("InvalidConfiguration", f"AWS account ID not allowed: {account}")
    if account in as_list(values.get("forbiddenAccountIds")):
        raise Refused("InvalidConfiguration", f"AWS account ID not allowed: {account}")
    tags = values.get("defaultTags") or {}
    return Access(account, str(region), role, dict(tags.get("tags") or {}))


def _assumed(cloud: Transaction, role: str, external_id: str | None) -> str:
    """The account of a role, assumed."""
    parts = role.split(":", 5)
    if len(parts) != ARN_PARTS or not parts[4].isdigit():
        raise Refused("InvalidConfiguration", f"'{role}' is an invalid ARN")
    account = parts[4]
    found = cloud.sql("select external_id, closed from accounts where id = ?", (account,))
    wanted, closed = found.fetchone() or (None, 0)
    if closed or (wanted is not None and wanted != external_id):
        message = f"IAM Role ({role}) cannot be assumed. There are a number of possible causes"
        raise Refused("Cannot assume IAM Role", f"{message}: AccessDenied: sts:AssumeRole")
    # An account whose role can be assumed has been prepared: the role, those named after it, and
    # the boundary of all roles are there, made by nothing that is in this cloud's file.
    prepared = [role, f"{role}-*", f"arn:aws:iam::{account}:policy/fl-silos/*"]
    cloud.add_preexisting(prepared)
    return account


def _parsed(value: Any) -> Any:
    """A provider's nested settings travel as JSON."""
    if isinstance(value, str) and value[:1] in "[{":
        return json.loads(value)
    return value
