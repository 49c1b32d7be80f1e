"""Images that hold one static program, as archives that containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(archive: Path, name: str, program: Path) -> None:
    """Write an image whose only file is ``program`` and which starts it, as a Docker archive."""
    layer = _tar({program.name: (program.read_bytes(), 0o755)})
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
        }
    ).encode()
    files = {"layer.tar": layer, f"{_digest(config)}.json": config}
    manifest = [{"Config": f"{_digest(config)}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files["manifest.json"] = json.dumps(manifest).encode()
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.write_bytes(_tar({file: (data, 0o644) for file, data in files.items()}))


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (data, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
