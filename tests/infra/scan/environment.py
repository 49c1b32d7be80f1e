"""The scanners' own environment, which make builds: build/scan."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BIN = ROOT / "build" / "scan" / "bin"

needed = pytest.mark.skipif(
    not (BIN.parent / ".ready").exists(),
    reason="no scanners: make build/scan/.ready, which make test-infra does",
)


def variables(home: Path) -> dict[str, str]:
    """A scanner's environment variables: no settings or credentials of the developer's own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        # checkov asks PyPI for a newer version of itself otherwise.
        "CKV_SKIP_PACKAGE_UPDATE_CHECK": "true",
        "LOG_LEVEL": "ERROR",
    }
