"""KMS keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.accounts import Account
from infra.policies import Statement, document

LONG_WINDOW, SHORT_WINDOW = 30, 7
"""Days until a key that is to go has gone: until then it can be had back. KMS' most and least."""

_MORE_FOR_LOGS = [
    "kms:Encrypt",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
]


class Key(pulumi.ComponentResource):
    """A key of the party's own, which is exchanged every year; what was encrypted stays readable.

    The account's identity policies say who may use it, and ``services`` in the account's name.
    """

    def __init__(
        self,
        what: str,
        account: Account,
        opts: pulumi.ResourceOptions,
        *,
        protect: bool,
        services: Sequence[str] = (),
        statements: Sequence[Statement] = (),
        region: str | None = None,
    ) -> None:
        """``services``: principals such as logs.REGION.amazonaws.com. ``region``: another one."""
        name = account.named(what)
        super().__init__("fl-silos:infra:Key", name, None, opts)
        made = aws.kms.Key(
            name,
            description=f"{account.federation}: {what} of {account.party}",
            enable_key_rotation=True,
            deletion_window_in_days=LONG_WINDOW if protect else SHORT_WINDOW,
            policy=document(
                _by_identity_policies(account),
                *(_by_service(account, service) for service in services),
                *statements,
            ),
            region=region,
            opts=account.child(self, protect=protect or None),
        )
        # For people, who do not know keys by their IDs.
        aws.kms.Alias(name, target_key_id=made.key_id, region=region, opts=account.child(self))
        self.arn = made.arn
        self.id = made.key_id
        self.register_outputs({})


def _by_identity_policies(account: Account) -> Statement:
    """Without it, nobody could ever change the key's policy again."""
    return {
        "Sid": "AsIdentityPoliciesSay",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account.id}:root"},
        "Action": "kms:*",
        "Resource": "*",  # in a key's policy: this key
    }


def _by_service(account: Account, service: str) -> Statement:
    """For the account's own log groups, alarms and so on, and nobody else's."""
    name, _, rest = service.partition(".")
    made: dict[str, Any] = {
        "Sid": f"For{name.capitalize()}",
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:SourceAccount": account.id}},
    }
    if name == "logs":
        groups = f"arn:aws:logs:{rest.partition('.')[0]}:{account.id}:log-group:*"
        made["Action"] = [*made["Action"], *_MORE_FOR_LOGS]
        # It says no account; it says in the encryption's context which log group it is about.
        made["Condition"] = {"StringLike": {"kms:EncryptionContext:aws:logs:arn": groups}}
    return made
