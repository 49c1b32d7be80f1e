"""Accounts: nothing is made by accident in whatever account is logged in to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from infra.policy.rule import Resource, rule
from infra.policy.values import UNKNOWN, differs, get, items, missing, parsed

AWS = "pulumi:providers:aws"
_DEFAULT = re.compile(r"default(_.*)?")
_ACCOUNT = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/.+")
_BUNDLES = re.compile(r"kubernetes:(helm\.sh/v3:Chart|helm\.sh/v4:Chart|kustomize.*|yaml.*)")
"""Components: what they make is judged one by one."""
_NOBODY = "placeholder"


@rule("account-explicit-provider", "aws:*", "kubernetes:*")
def explicit(resource: Resource) -> Iterator[str]:
    """Every resource names the account or cluster that it belongs to.

    A default provider takes whatever account the caller happens to be logged in to.

    Source: AWS Security Reference Architecture (account separation).
    """
    if _BUNDLES.fullmatch(resource.kind):
        return
    name = resource.provider.rpartition("::")[2]
    if not name or _DEFAULT.fullmatch(name):
        yield "it has no provider of its own; give the party's by opts"


@rule("account-provider-confined", AWS)
def provider(provider: Resource) -> Iterator[str]:
    """Each party's account is entered by a role that expects this federation, and no other account.

    The external ID keeps others from using the role by way of us; the allowed account keeps a slip
    in a stack's file from changing another hospital's account. An example stack's provider, whose
    credentials are those of nobody, can change nothing.

    Source: IAM User Guide, external ID and confused deputy; AWS Well-Architected, SEC02-BP02.
    """
    keys = [provider.get(key) for key in ("accessKey", "secretKey", "token")]
    if not any(differs(key, _NOBODY) for key in keys[:2]):
        return
    if any(key is not UNKNOWN and not missing(key) for key in keys):
        yield "it has keys of its own; assume a role"
    value = provider.get("assumeRoles")
    roles = parsed(value)
    if missing(roles):
        yield "assumeRoles is missing; assume the party's deployer role"
    for role in items(roles):
        if missing(get(role, "externalId")):
            yield "assumeRoles has no externalId; give the one that was agreed on"
    allowed = parsed(provider.get("allowedAccountIds"))
    if missing(allowed):
        yield "allowedAccountIds is missing; name the party's account"
    found = [_ACCOUNT.fullmatch(str(get(role, "roleArn"))) for role in items(roles)]
    for account in [match.group(1) for match in found if match]:
        if allowed is not UNKNOWN and not missing(allowed) and items(allowed) != [account]:
            yield f"allowedAccountIds is not the role's account {account} alone; set it to that"


@rule("account-default-tags", AWS)
def tags(provider: Resource) -> Iterator[str]:
    """Everything in an account says which federation and party it belongs to.

    Source: AWS Well-Architected, COST03-BP02 and SEC01 (resource ownership).
    """
    given = parsed(provider.get("defaultTags"))
    if given is not UNKNOWN and missing(get(given, "tags")):
        yield "defaultTags is missing; give the federation's and the party's name"
