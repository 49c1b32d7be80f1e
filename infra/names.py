"""Names that several parts must agree on, and names that fit where AWS gives little room."""

from __future__ import annotations

import hashlib

_DIGEST = 10


def zone(federation: str) -> str:
    """The federation's domain, which only its own networks know."""
    return f"{federation}.internal"


def coordinator(federation: str) -> str:
    """The coordinator's name: that in its certificate."""
    return f"aggregator.{zone(federation)}"


def cut(name: str, longest: int) -> str:
    """The name; where it is too long its beginning, and a digest that keeps it apart."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - _DIGEST - 1]}-{digest(name)}"


def digest(text: str) -> str:
    """A few characters that stand for the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
