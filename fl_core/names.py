"""Names that fit where there is little room."""

from __future__ import annotations

import hashlib

_DIGEST = 10


def cut(name: str, longest: int) -> str:
    """The name; where it is too long its beginning, and a digest that keeps it apart."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - _DIGEST - 1]}-{digest(name)}"


def digest(text: str) -> str:
    """A few characters that stand for the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
