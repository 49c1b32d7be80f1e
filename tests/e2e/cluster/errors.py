"""The one error that a caller is meant to read."""

from __future__ import annotations


class ClusterError(Exception):
    """What went wrong, in one line."""
