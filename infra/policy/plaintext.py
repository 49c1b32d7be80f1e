"""Private keys: only where Pulumi keeps them encrypted."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from infra.policy.rule import Resource, rule
from infra.policy.values import leaves

_PEM = re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
_ENCODED = re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/]{30,}")
"""Base64 of what begins as PEM does."""
_ALWAYS_SECRET = (
    ("kubernetes:core/v1:Secret", re.compile(r"(data|stringData)\..+")),
    ("tls:index/", re.compile(r"(caP|p)rivateKey(Pem|PemPkcs8|Openssh)")),
    ("aws:secretsmanager/secretVersion:", re.compile(r"secret(String|Binary)")),
)
"""What the providers' own schemas keep secret. Needed where secrets cannot be told from the rest:
the policy SDK hands rules the properties with secrets laid open."""


@rule("no-plaintext-keys", "*")
def keys(resource: Resource) -> Iterator[str]:
    """No private key is readable in the state, in an output or in a cluster's settings.

    Source: NIST 800-53 SC-12 and SC-28; Pulumi, secrets.
    """
    told_apart = resource.plain is not None
    for where, value in leaves(resource.plain if told_apart else resource.props):
        if not isinstance(value, str) or not _is_key(value):
            continue
        if told_apart or not _is_always_secret(resource.kind, where):
            yield f"{where} holds a private key in plain text; make it a secret, in a Secret"


def _is_always_secret(kind: str, where: str) -> bool:
    return any(kind.startswith(start) and path.fullmatch(where) for start, path in _ALWAYS_SECRET)


def _is_key(value: str) -> bool:
    return bool(_PEM.search(value)) or any(
        _PEM.search(_decoded(found)) for found in _ENCODED.findall(value)
    )


def _decoded(encoded: str) -> str:
    """The beginning of what is encoded."""
    whole = encoded[: len(encoded) // 4 * 4]
    try:
        return base64.b64decode(whole).decode("ascii", errors="ignore")
    except binascii.Error:
        return ""
