"""``make e2e``: the stacks with the real engine, the local one on a real cluster.

Takes the ``pulumi`` on PATH and the cluster of KUBECONFIG where they are, and an image that this
cluster can pull, named by E2E_IMAGE. What is missing is built and started in build/e2e, and ended
afterwards; KEEP=1 leaves the cluster running for the next time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.e2e.cluster.build import build as build_cluster
from tests.e2e.cluster.errors import ClusterError
from tests.e2e.cluster.nodes import load_image
from tests.e2e.cluster.start import up
from tests.e2e.cluster.stop import down
from tests.e2e.engine import engine
from tests.e2e.engine.errors import EngineError
from tests.e2e.image.build import IMAGE
from tests.e2e.image.tools import ImageError

ROOT = Path(__file__).resolve().parents[2]
ARCHIVES = ROOT / "build" / "e2e" / "image"
T = TypeVar("T")
AGAIN = "localhost/fl-silos:again"
"""The same image but for a label: what a new release is to the stack."""


def main() -> int:
    try:
        programs = _timed("pulumi", lambda: engine.programs(may_build=True))
        print(f"e2e: {programs.pulumi}{', with doubles of its plugins' * programs.doubles}")
        if os.environ.get("KUBECONFIG"):
            if not os.environ.get("E2E_IMAGE"):
                raise ClusterError("KUBECONFIG is set: name an image that it can pull in E2E_IMAGE")
            return _tests()
        return _on_a_cluster_of_our_own()
    except (EngineError, ClusterError, ImageError) as error:
        print(f"e2e: {error}", file=sys.stderr)
        return 1


def _on_a_cluster_of_our_own() -> int:
    _timed("Kubernetes", lambda: build_cluster(lambda text: print(f"e2e: {text}", flush=True)))
    first, again = ARCHIVES / "first.tar", ARCHIVES / "again.tar"
    _timed("image", lambda: _image(IMAGE, first))
    _timed("image again", lambda: _image(AGAIN, again, "--label", "again=yes", "--without", IMAGE))
    try:
        _timed("cluster", up)
        _timed("load", lambda: [load_image(archive) for archive in (first, again)])
        for archive in (first, again):
            archive.unlink()  # the node has what is in it, and it is large
        return _tests()
    finally:
        if not os.environ.get("KEEP"):
            down()


def _image(name: str, archive: Path, *options: str) -> None:
    """Build an image and write it to ``archive``; a process of its own, for its output."""
    command = [sys.executable, "-m", "tests.e2e.image.build", "--bare", "--image", name, *options]
    done = subprocess.run([*command, "--archive", str(archive)], cwd=ROOT)
    if done.returncode:
        raise ImageError(f"{name} could not be built")


def _tests() -> int:
    """Those on the cluster, one after the other, and those on a make-believe cloud."""
    results = [
        subprocess.run([sys.executable, "-m", "pytest", "tests/e2e", *options], cwd=ROOT).returncode
        for options in (("-m", "e2e and engine", "-n", "2"), ("-m", "e2e and not engine", "-s"))
    ]
    return next((result for result in results if result), 0)


def _timed(what: str, step: Callable[[], T]) -> T:
    started = time.monotonic()
    result = step()
    print(f"e2e: {what}: {time.monotonic() - started:.0f} s", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
