"""Names that several parts must agree on."""

from __future__ import annotations


def zone(federation: str) -> str:
    """The federation's domain, which only its own networks know."""
    return f"{federation}.internal"


def coordinator(federation: str) -> str:
    """The coordinator's name: that in its certificate."""
    return f"aggregator.{zone(federation)}"
