"""Builds Kubernetes, etcd and CoreDNS from their Go modules, and the cluster's images."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from .errors import ClusterError
from .images import write_image
from .paths import BIN, HERE, IMAGES
from .tools import TO_BUILD, check_tools, search_path

RECIPE = "1"
"""Raised when the way of building changes, so that what lies there is built anew."""


GO = HERE / "go"
KUBERNETES = "k8s.io/kubernetes/cmd"
COMMANDS = {
    "kube-apiserver": f"{KUBERNETES}/kube-apiserver",
    "kube-controller-manager": f"{KUBERNETES}/kube-controller-manager",
    "kube-scheduler": f"{KUBERNETES}/kube-scheduler",
    "kubelet": f"{KUBERNETES}/kubelet",
    "kube-proxy": f"{KUBERNETES}/kube-proxy",
    "kubectl": f"{KUBERNETES}/kubectl",
    "etcd": "go.etcd.io/etcd/server/v3",
    "coredns": "./coredns",
    "pause": "./pause",
    "probe": "./probe",
}
"""Each program and its Go package."""
IN_IMAGES = ("coredns", "pause", "probe")
"""The programs that also become an image ``localhost/PROGRAM:1``."""
STAMP = BIN / "cluster.stamp"


def is_built() -> bool:
    """Whether everything is there; whether it is the newest is for ``build`` to say."""
    return STAMP.exists() and all(output.exists() for output in _outputs())


def build(say: Callable[[str], None]) -> None:
    """Build it, if anything is missing or has changed.

    Raises ClusterError with the compiler's last line.
    """
    check_tools(TO_BUILD)
    stamp = _stamp(_go("env", "GOVERSION", "GOOS", "GOARCH"))
    if is_built() and STAMP.read_text() == stamp:
        return
    STAMP.unlink(missing_ok=True)
    BIN.mkdir(parents=True, exist_ok=True)
    flags = ["-trimpath", "-buildvcs=false", f"-ldflags=-s -w {_version_flags()}"]
    for program, package in COMMANDS.items():
        say(f"building {program}")
        _go("build", *flags, "-o", str(BIN / program), package)
    for program in IN_IMAGES:
        write_image(IMAGES / f"{program}.tar", f"localhost/{program}:1", BIN / program)
    STAMP.write_text(stamp)


def _outputs() -> list[Path]:
    programs = [BIN / program for program in COMMANDS]
    return programs + [IMAGES / f"{program}.tar" for program in IN_IMAGES]


def _version_flags() -> str:
    """What makes Kubernetes' programs say their version, which a build from modules does not."""
    found = re.search(
        r"^\tk8s\.io/kubernetes v((\d+)\.(\d+)\S*)", (GO / "go.mod").read_text(), re.M
    )
    if found is None:
        raise ClusterError(f"{GO / 'go.mod'} does not require k8s.io/kubernetes")
    version, major, minor = found.groups()
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    package = "k8s.io/component-base/version"
    return " ".join(f"-X {package}.{name}={value}" for name, value in values.items())


def _stamp(go: str) -> str:
    digest = hashlib.sha256(f"{RECIPE} {go}".encode())
    for file in sorted(GO.rglob("*")):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _go(*arguments: str) -> str:
    # Without C: static programs, and no compiler for C needed. What go.sum says is what is built,
    # so no other list of checksums is asked.
    environment = os.environ | {"CGO_ENABLED": "0", "PATH": search_path()}
    done = subprocess.run(
        ["go", *arguments], cwd=GO, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ClusterError(f"go {arguments[0]} failed in {GO}: {lines[-1]}")
    return done.stdout
