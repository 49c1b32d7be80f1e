"""``make engine``: the engine that tests need, found or built; without one they are skipped.

A build that fails is an error: on a machine with Go, the tests are meant to run.
"""

from __future__ import annotations

import shutil
import sys

from .engine import programs
from .errors import EngineError


def main() -> None:
    """Say where the engine is, or why there is none."""
    try:
        print(f"engine: {programs(may_build=shutil.which('go') is not None).pulumi}")
    except EngineError as error:
        if shutil.which("go") is not None:
            sys.exit(f"engine: {error}")
        print(f"engine: {error}; tests that need it are skipped")


main()
