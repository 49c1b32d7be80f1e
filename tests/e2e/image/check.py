"""Try the image as pods run it: another user, a read-only root, no rights, no network.

    python3 -m tests.e2e.image.check [--image NAME]

With runc alone, as root; the storage is that of ``build --bare``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.image.build import IMAGE
from tests.e2e.image.tools import ROOT, STORAGE, ImageError, Tool, choose

UID = 10001
ABSENT = "pip pip3 gcc cc g++ make uv curl wget git"
"""What a pod has no use for, and an intruder has."""
LOOK = f"""
set -u
for name in {ABSENT}; do command -v "$name" && exit 1; done
find / -xdev -name '*.csv' -path '*heart*' | grep . && exit 1
touch /opt/x /etc/x /x 2>/dev/null && exit 1
test "$(id -u):$(id -g)" = {UID}:{UID} || exit 1
"""
COMMANDS = (
    ("nothing that should not be there", ["sh", "-c", LOOK]),
    ("fl --version", ["fl", "--version"]),
    ("fl plugins", ["fl", "plugins"]),
    ("fl run, MLP", "fl run /data/run.yaml --out /tmp/mlp".split()),
    (
        "fl run, boosted trees",
        "fl run /data/run.yaml --out /tmp/trees --set model.name=xgboost --set model.params={} "
        "--set strategy.name=bagging".split(),
    ),
)


def check(tool: Tool, image: str) -> None:
    """Run every command in a container of its own. Raises ImageError for one that fails."""
    with _root_of(tool, image) as root:
        environment = tool.inspected(image)["OCIv1"]["config"]["Env"]
        for what, command in COMMANDS:
            started = time.monotonic()
            said = _run(root, command, environment)
            last = (said.strip().splitlines() or [""])[-1]
            print(f"image: {what}: {time.monotonic() - started:.1f} s: {last}", flush=True)


@contextmanager
def _root_of(tool: Tool, image: str) -> Iterator[Path]:
    container = tool.run("from", image).strip()
    try:
        yield Path(tool.run("mount", container).strip())
        tool.run("umount", container)
    finally:
        tool.run("rm", container)


def _run(root: Path, command: list[str], environment: list[str]) -> str:
    with tempfile.TemporaryDirectory() as bundle:
        (Path(bundle) / "config.json").write_text(json.dumps(_config(root, command, environment)))
        name = f"fl-image-check-{os.getpid()}"
        done = subprocess.run(
            ["runc", "--root", f"{bundle}/runc", "run", "--bundle", bundle, name],
            capture_output=True,
            text=True,
            timeout=300,
        )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise ImageError(f"{' '.join(command)[:80]}: exit code {done.returncode}: {said}")
    return done.stdout


def _config(root: Path, command: list[str], environment: list[str]) -> dict[str, Any]:
    """What a pod of Pod Security `restricted` comes to."""
    plain = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "process": {
            "args": command,
            "env": environment,
            "cwd": "/tmp",  # noqa: S108 - the container's own
            "user": {"uid": UID, "gid": UID},
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": plain},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": plain},  # noqa: S108
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},  # noqa: S108
            {
                "destination": "/data",
                "type": "bind",
                "source": str(ROOT / "examples" / "own-csv"),
                "options": ["rbind", "ro"],
            },
        ],
        "linux": {
            "namespaces": [{"type": one} for one in ("pid", "ipc", "uts", "mount", "network")],
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.e2e.image.check")
    parser.add_argument("--image", default=IMAGE)
    arguments = parser.parse_args()
    try:
        check(choose("buildah", STORAGE), arguments.image)
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
