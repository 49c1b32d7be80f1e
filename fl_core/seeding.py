"""Reproducible seeds, derived from a run's seed. Never for secrets: those come from the OS."""

from __future__ import annotations

import hashlib


def derive(seed: int, *labels: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. ``derive(42, "fit", "cleveland", 3)``.

    SHA-256 of the labels, so that neighbouring seeds, silos and rounds share no stream.
    """
    text = "\x1f".join(str(part) for part in (seed, *labels))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
