"""Fuzz one target: ``python -m tests.fuzz [--seconds 600] TARGET``; needs atheris (Linux, x86-64).

Guided by coverage of fl_core. Starts from tests/fuzz/corpus, keeps what it finds in build/fuzz, and
ends with an input's file when one fails, takes more than 10 seconds, or too much memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
BUILD = Path(__file__).parents[2] / "build/fuzz"
NAMES = ("frames", "framed", "chunked", "state", "header", "run-file", "control", "answer")
MAX_BYTES = 4096
"""Of an input."""
INPUT_SECONDS = 10
MEMORY_MIB = 1024


def main() -> None:
    """Run the fuzzer, which ends the process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=600)
    arguments = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("this needs atheris: pip install atheris==3.0.0")
    with atheris.instrument_imports(include=["fl_core"]):
        from tests.fuzz.targets import TARGETS

    new, seeds = BUILD / arguments.target, CORPUS / arguments.target
    new.mkdir(parents=True, exist_ok=True)
    limit = MEMORY_MIB * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (2 * limit, 2 * limit))
    atheris.Setup(
        [
            sys.argv[0],
            str(new),
            str(seeds),
            f"-max_total_time={arguments.seconds}",
            f"-max_len={MAX_BYTES}",
            f"-timeout={INPUT_SECONDS}",
            f"-rss_limit_mb={MEMORY_MIB}",
            f"-artifact_prefix={BUILD}/{arguments.target}-",
            "-print_final_stats=1",
        ],
        TARGETS[arguments.target],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
