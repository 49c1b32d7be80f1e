"""The tool that builds images here: docker, podman or buildah, and how each is called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
STORAGE = ROOT / "build" / "e2e" / "image" / "storage"
TOOLS = ("docker", "podman", "buildah")


class ImageError(Exception):
    """An image that cannot be built, told in one line with the remedy."""


@dataclass(frozen=True)
class Tool:
    """One of the three, by name. ``options`` come before the command that it is given."""

    name: str
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path) -> str:
        """What it says on standard output. Raises ImageError with the end of its errors."""
        command = [self.name, *self.options, *(str(argument) for argument in arguments)]
        environment = os.environ | self.environment
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise ImageError(f"{self.name} is not on PATH: install it") from error
        if done.returncode:
            raise ImageError(f"{self.name} {arguments[0]} failed: {_end(done.stderr)}")
        return done.stdout

    def inspected(self, image: str) -> dict[str, Any]:
        """All that the tool knows of an image. Raises ImageError where it has none."""
        kind = ["inspect", "--type", "image"] if self.name == "buildah" else ["image", "inspect"]
        found = json.loads(self.run(*kind, image))
        return found[0] if isinstance(found, list) else found

    def has(self, image: str) -> bool:
        """Whether the tool has an image of that name."""
        try:
            self.inspected(image)
        except ImageError:
            return False
        return True

    def labels(self, image: str) -> dict[str, str]:
        """The labels of an image; none where the tool has no such image."""
        if not self.has(image):
            return {}
        one = self.inspected(image)
        config = one["OCIv1"]["config"] if self.name == "buildah" else one["Config"]
        return config.get("Labels") or {}

    def id_of(self, image: str) -> str:
        """The image's own id, or nothing where there is none."""
        if not self.has(image):
            return ""
        one = self.inspected(image)
        return one["FromImageID"] if self.name == "buildah" else one["Id"]

    def remove(self, image: str) -> None:
        """Remove an image, unless a container or another image is made of it."""
        with suppress(ImageError):
            self.run("rmi", image)

    @property
    def copies_layers(self) -> bool:
        """Whether each layer is stored with all that is below it."""
        return self.environment.get("STORAGE_DRIVER") == "vfs"


def _end(errors: str) -> str:
    """The last lines of what a tool says, each cut: buildah repeats a whole command."""
    lines = [f"{line[:300]} ..." if len(line) > 300 else line for line in errors.splitlines()]
    return "\n  ".join(lines[-8:]) or "it does not say why"


def choose(name: str = "", storage: Path | None = None) -> Tool:
    """The tool of that name, or the first that is there and works. Raises ImageError.

    ``storage``: where buildah or podman are to keep their images, in place of the user's own.
    """
    for candidate in (name,) if name else TOOLS:
        tool = _buildah(storage) if candidate == "buildah" else _plain(candidate, storage)
        if shutil.which(candidate) and (name or _works(tool)):
            return tool
    raise ImageError(
        f"{name} is not on PATH: install it"
        if name
        else "no docker, podman or buildah that works: install one, or start Docker's daemon"
    )


def _plain(name: str, storage: Path | None) -> Tool:
    if name == "docker":
        return Tool(name, environment={"DOCKER_BUILDKIT": "1"})
    return Tool(name, _places(storage))


def _buildah(storage: Path | None) -> Tool:
    environment = {"BUILDAH_FORMAT": "oci"}
    if os.geteuid() == 0:
        # As root in a container there are no rights for runc's isolation; chroot does for a build.
        environment["BUILDAH_ISOLATION"] = "chroot"
    if storage is not None:
        environment["STORAGE_DRIVER"] = "overlay" if overlay_works(storage) else "vfs"
    return Tool("buildah", _places(storage), environment)


def _places(storage: Path | None) -> tuple[str, ...]:
    if storage is None:
        return ()
    return ("--root", str(storage / "images"), "--runroot", str(storage / "run"))


def _works(tool: Tool) -> bool:
    """Docker's client is of no use without its daemon."""
    try:
        tool.run("info")
    except ImageError:
        return False
    return True


@cache
def overlay_works(storage: Path) -> bool:
    """Whether the file system there can be stacked: vfs copies 5 GB for each layer instead."""
    storage.mkdir(parents=True, exist_ok=True)
    trial = storage / "trial"
    folders = [trial / name for name in ("lower", "upper", "work", "merged")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    lower, upper, work, merged = folders
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    try:
        mounted = _quiet(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)])
        if mounted:
            _quiet(["umount", str(merged)])
        return mounted
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _quiet(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
