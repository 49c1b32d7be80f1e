"""An image as one file, for ``ctr images import``; on demand without layers that are there already.

A layer of dependencies has 5 GB. For an image that differs in code or in a label only, the archive
holds what differs: containerd takes it where it has the other layers.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from tests.e2e.image.tools import ImageError, Tool


def write(tool: Tool, image: str, archive: Path, without: str = "") -> None:
    """Write the image to ``archive``, less the layers that ``without`` has. Raises ImageError."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    if tool.name != "buildah":
        if without:
            raise ImageError(
                f"{tool.name} writes whole archives only: use buildah, or leave it out"
            )
        tool.run("save", "--output", archive, image)
    elif without:
        _write_rest(tool, image, archive, without)
    else:
        tool.run("push", "--quiet", image, f"docker-archive:{archive}:{image}")


def _write_rest(tool: Tool, image: str, archive: Path, without: str) -> None:
    """An OCI archive with manifest, configuration and those layers that ``without`` lacks."""
    known = _layers(tool, without)
    layout = archive.with_suffix(".layout")
    shutil.rmtree(layout, ignore_errors=True)
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    try:
        # buildah writes no blob that is there. These are empty files of the right size.
        for digest, size in known.items():
            with (blobs / digest).open("wb") as file:
                file.truncate(size)
        tool.run("push", "--quiet", "--disable-compression", image, f"oci:{layout}:{image}")
        _name(layout / "index.json", image)
        with tarfile.open(archive, "w") as tar:
            for path in sorted(layout.rglob("*")):
                if path.is_file() and path.name not in known:
                    tar.add(path, str(path.relative_to(layout)))
    finally:
        shutil.rmtree(layout, ignore_errors=True)


def _layers(tool: Tool, image: str) -> dict[str, int]:
    """The layers' digests and sizes."""
    manifest = json.loads(tool.inspected(image)["Manifest"])
    return {layer["digest"].removeprefix("sha256:"): layer["size"] for layer in manifest["layers"]}


def _name(index: Path, image: str) -> None:
    """containerd takes the image's name from an annotation of its own."""
    content = json.loads(index.read_text())
    for manifest in content["manifests"]:
        manifest.setdefault("annotations", {})["io.containerd.image.name"] = image
    index.write_text(json.dumps(content))
