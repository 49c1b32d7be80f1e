"""Findings that stand, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase


class Explained:
    """Reasons by what a scanner calls its check, and a pattern of stack/resource if it needs one.

    ``{"CKV_AWS_144": "..."}`` or ``{"CKV_AWS_18 */aws_s3_bucket.*-logs": "..."}``.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        for entry, reason in reasons.items():
            assert reason.strip(), f"{entry}: no reason given"
        self._unused = {entry: entry.partition(" ")[::2] for entry in reasons}
        self._entries = [*self._unused.items()]

    def explain(self, check: str, place: str) -> bool:
        """Whether a reason is there for it. Every one that fits has then been of use."""
        fitting = [
            entry
            for entry, (named, pattern) in self._entries
            if named == check and fnmatchcase(place, pattern or "*")
        ]
        for entry in fitting:
            self._unused.pop(entry, None)
        return bool(fitting)

    @property
    def stale(self) -> list[str]:
        """Those that have explained nothing so far, so that they hide what comes next."""
        return [*self._unused]
