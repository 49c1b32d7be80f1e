"""A stand-in for Docker Hub's ``python:3.11-slim``, for a machine that reaches no registry.

    python3 -m tests.e2e.image.base

Debian's own packages by debootstrap, under the name that the Dockerfile's FROM means. For tests:
what is deployed is built on the real one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.image.tools import STORAGE, ImageError, Tool, choose

NAME = "docker.io/library/python:3.11-slim"
SUITE = "bookworm"
"""The Debian release whose Python is 3.11."""
PACKAGES = "python3,python3-venv,ca-certificates"
MIRROR = "http://deb.debian.org/debian"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MADE_BY = "fl-silos.base"
# Debian's python3 is /usr/bin/python3; the real image's is here, and on PATH as python.
LINKS = {"python": "python3.11", "python3": "python3.11", "python3.11": "/usr/bin/python3.11"}


def ensure(tool: Tool) -> bool:
    """Make the base image if ``tool`` has none of that name; whether it did. Raises ImageError."""
    if tool.name != "buildah":
        raise ImageError("the stand-in for python:3.11-slim is made with buildah: install it")
    if tool.has(NAME):
        return False
    if not shutil.which("debootstrap"):
        raise ImageError("debootstrap is not on PATH: apt-get install debootstrap")
    if os.geteuid() != 0:
        raise ImageError("debootstrap needs root")
    container = tool.run("from", "scratch").strip()
    try:
        root = Path(tool.run("mount", container).strip())
        _fill(root)
        tool.run("umount", container)
        path = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        tool.run(
            "config", "--env", path, "--cmd", "python3", "--label", f"{MADE_BY}={SUITE}", container
        )
        tool.run("commit", "--quiet", container, NAME)
    finally:
        tool.run("rm", container)
    return True


def _fill(root: Path) -> None:
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root), MIRROR],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["no message"]
        raise ImageError(f"debootstrap failed: {said[-1]}; is {MIRROR} reachable?")
    for folder in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
        for path in (root / folder).glob("*"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, target in LINKS.items():
        (root / "usr/local/bin" / name).symlink_to(target)
    # A machine may trust an authority of its own, behind which the package index lies.
    if CERTIFICATES.exists():
        shutil.copyfile(CERTIFICATES, root / CERTIFICATES.relative_to("/"))


def main() -> int:
    started = time.monotonic()
    try:
        made = ensure(choose("buildah", STORAGE))
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    print(f"image: {NAME} {'made' if made else 'is there'}, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
