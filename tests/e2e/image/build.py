"""Build the image, if anything that goes into it has changed.

python3 -m tests.e2e.image.build --image NAME        with docker, podman or buildah
python3 -m tests.e2e.image.build --bare ...          on a machine without a registry
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.image import archives, base
from tests.e2e.image.tools import ROOT, STORAGE, TOOLS, ImageError, Tool, choose

IMAGE = "localhost/fl-silos:dev"
PLUGINS = ("fl-core-mlp", "fl-core-xgboost")
INPUTS_LABEL = "fl-silos.inputs"
"""The image says itself what it was made of: another tool, or another machine, is not mistaken."""
FILES = (
    "Dockerfile",
    ".dockerignore",
    "requirements/bootstrap.txt",
    "requirements/image.txt",
    "pyproject.toml",
    "README.md",
)
FOLDERS = ("fl_core", "plugins")
LEFT_OUT = {"tests", "build", "__pycache__"}
NEEDED_GB = {"": 14, "cpu": 4}
"""Free space that a build from nothing takes on the way, by torch's build; vfs takes three times
as much. What stays is a good half of it."""


@dataclass(frozen=True)
class Wanted:
    """What the image is to be."""

    image: str = IMAGE
    plugins: tuple[str, ...] = PLUGINS
    torch_backend: str = ""
    base: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Further ones: they make another image in a second, without another layer of any size."""
    secrets: tuple[str, ...] = ()
    """As ``--secret`` of the tools has them; the Dockerfile says which there are."""

    def arguments(self) -> list[str]:
        """The build's arguments that change what comes out, but for the labels."""
        given = {"PLUGINS": " ".join(self.plugins), "TORCH_BACKEND": self.torch_backend}
        if self.base:
            given["BASE"] = self.base
        return [part for name in given for part in ("--build-arg", f"{name}={given[name]}")]


def build(tool: Tool, wanted: Wanted) -> bool:
    """Build the image; whether there was anything to do. Raises ImageError."""
    _check(wanted)
    inputs = inputs_of(wanted)
    before = tool.labels(wanted.image)
    if before.get(INPUTS_LABEL) == inputs:
        return False
    displaced = tool.id_of(wanted.image)
    labels = {**wanted.labels, INPUTS_LABEL: inputs}
    arguments = wanted.arguments()
    arguments += ["--build-arg", f"REVISION={_revision()}"]
    arguments += [part for name, value in labels.items() for part in ("--label", f"{name}={value}")]
    arguments += [part for secret in wanted.secrets for part in ("--secret", f"{secret}")]
    if tool.name != "docker":
        # As docker does: what has not changed is taken as it is, and a failure leaves nothing.
        arguments += ["--layers", "--force-rm"]
    tool.run("build", "--quiet", *arguments, "--tag", wanted.image, str(ROOT))
    if displaced and displaced != tool.id_of(wanted.image):
        tool.remove(displaced)
    return True


def inputs_of(wanted: Wanted) -> str:
    """A digest of all that the image is made of."""
    digest = hashlib.sha256()
    for path in _files():
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update("\0".join(wanted.arguments()).encode())
    digest.update(repr(sorted(wanted.labels.items())).encode())
    return digest.hexdigest()


def _files() -> Iterator[Path]:
    """What .dockerignore lets through, and the two files that say how it is used."""
    yield from (ROOT / name for name in FILES)
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            ignored = LEFT_OUT & set(parts) or any(part.endswith(".egg-info") for part in parts)
            if path.is_file() and not ignored and path.suffix != ".csv":
                yield path


def _check(wanted: Wanted) -> None:
    if wanted.torch_backend not in NEEDED_GB:
        raise ImageError(
            f"TORCH_BACKEND is {wanted.torch_backend!r}: leave it empty, or set it to cpu"
        )
    for plugin in wanted.plugins:
        if not (ROOT / "plugins" / plugin / "pyproject.toml").is_file():
            known = ", ".join(
                sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
            )
            raise ImageError(f"PLUGINS names {plugin!r}, but plugins/ has: {known}")


def check_room(tool: Tool, storage: Path, wanted: Wanted) -> None:
    """Raise ImageError where the disk would fill up half-way through a build from nothing."""
    if tool.labels(wanted.image):  # its dependencies are there
        return
    needed = NEEDED_GB[wanted.torch_backend] * (3 if tool.copies_layers else 1)
    storage.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(storage).free / 1e9
    if free < needed:
        raise ImageError(
            f"{storage} has {free:.0f} GB free, and the build takes {needed}: free some, or take "
            "the small build of torch (TORCH_BACKEND=cpu)"
        )


def _revision() -> str:
    """The commit that is built, or nothing outside a checkout."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def main() -> int:
    arguments = _parser().parse_args()
    try:
        _run(arguments)
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    wanted = Wanted(
        image=arguments.image,
        plugins=tuple(arguments.plugins.replace(",", " ").split()),
        torch_backend=arguments.torch_backend,
        base=arguments.base,
        labels=dict(label.split("=", 1) for label in arguments.label),
        secrets=tuple(arguments.secret),
    )
    tool = choose(
        "buildah" if arguments.bare else arguments.tool, STORAGE if arguments.bare else None
    )
    if arguments.bare:
        check_room(tool, STORAGE, wanted)
        base.ensure(tool)
    made = build(tool, wanted)
    _say(f"{wanted.image} {'built with ' + tool.name if made else 'is there'}", started)
    if arguments.archive:
        started = time.monotonic()
        archives.write(tool, wanted.image, arguments.archive, without=arguments.without)
        _say(f"{arguments.archive}: {arguments.archive.stat().st_size / 1e6:.0f} MB", started)


def _say(text: str, started: float) -> None:
    print(f"image: {text}, {time.monotonic() - started:.0f} s", flush=True)


def _label(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.e2e.image.build")
    parser.add_argument("--image", default=IMAGE, help="its name; %(default)s")
    parser.add_argument("--plugins", default=" ".join(PLUGINS), help="folders of plugins/")
    parser.add_argument("--torch-backend", default="", help="cpu: the small build of torch")
    parser.add_argument("--base", default="", help="another image than the Dockerfile's BASE")
    parser.add_argument("--label", action="append", default=[], type=_label, metavar="NAME=VALUE")
    parser.add_argument("--secret", action="append", default=[], metavar="id=ca,src=FILE")
    parser.add_argument("--tool", default="", choices=["", *TOOLS])
    parser.add_argument(
        "--bare",
        action="store_true",
        help="no registry: with buildah as root, on a base made here; all of it below build/e2e",
    )
    parser.add_argument("--archive", type=Path, help="also write it, for `ctr images import`")
    parser.add_argument(
        "--without",
        default="",
        metavar="IMAGE",
        help="leave the layers of that image out of the archive: where it goes has them",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
