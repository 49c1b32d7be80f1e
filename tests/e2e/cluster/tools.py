"""What the machine must have."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .errors import ClusterError

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
CNI = Path("/usr/lib/cni")

TO_BUILD = {"go": "a Go of 1.24 or newer (Debian's golang-go is older before trixie)"}
TO_RUN = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    str(CNI / "bridge"): "containernetworking-plugins",
    str(CNI / "host-local"): "containernetworking-plugins",
    str(CNI / "loopback"): "containernetworking-plugins",
    "ip": "iproute2",
    "iptables": "iptables",
    "iptables-restore": "iptables",
    "mount": "mount",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "unshare": "util-linux",
}
"""Each tool, and the Debian package that brings it."""


def search_path() -> str:
    """PATH with the folders of the system's own tools, which a user's PATH may lack."""
    return f"{os.environ.get('PATH', os.defpath)}:{SBIN}"


def check_tools(tools: dict[str, str]) -> None:
    """Raise ClusterError with the missing tools and what brings them."""
    missing = {tool: brought for tool, brought in tools.items() if not found(tool)}
    if not missing:
        return
    names = ", ".join(missing)
    brought = " ".join(sorted(set(missing.values())))
    if missing.keys() & TO_BUILD.keys():
        raise ClusterError(f"not found: {names}; needed: {brought}")
    raise ClusterError(f"not found: {names}; apt-get install {brought}")


def found(tool: str) -> bool:
    return shutil.which(tool, path=search_path()) is not None
