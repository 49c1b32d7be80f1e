"""The one error of this folder."""

from __future__ import annotations


class EngineError(Exception):
    """Something that a test's reader must be told: in one line, without secrets."""
