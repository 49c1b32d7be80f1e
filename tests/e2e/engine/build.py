"""Builds the Pulumi CLI from its Go modules: ``python -m tests.e2e.engine.build``.

Takes minutes the first time; nothing is done when it is there and go.mod has not changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .errors import EngineError

ROOT = Path(__file__).parents[3]
MODULE = Path(__file__).parent / "cli"
BIN = ROOT / "build" / "e2e" / "bin"
PULUMI = BIN / "pulumi"
STAMP = BIN.parent / "pulumi.stamp"
PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"


def build() -> Path:
    """The CLI, built if it is not there or not the one of go.mod.

    Raises EngineError when there is no Go, or with the last line that Go says.
    """
    if shutil.which("go") is None:
        raise EngineError("no pulumi and no go on PATH: install one of them")
    digest = hashlib.sha256(_go("env", "GOVERSION", "GOOS", "GOARCH").encode())
    for file in (MODULE / "go.mod", MODULE / "go.sum"):
        digest.update(file.read_bytes())
    flags = ["-trimpath", "-buildvcs=false", f"-ldflags=-s -w -X {VERSION_VARIABLE}={version()}"]
    digest.update(" ".join(flags).encode())
    if PULUMI.exists() and STAMP.exists() and STAMP.read_text() == digest.hexdigest():
        return PULUMI
    BIN.mkdir(parents=True, exist_ok=True)
    STAMP.unlink(missing_ok=True)
    # Beside it and then in its place: a build that is stopped leaves no half of a program.
    new = PULUMI.with_name("pulumi.new")
    _go("build", *flags, "-o", str(new), PACKAGE)
    new.replace(PULUMI)
    STAMP.write_text(digest.hexdigest())
    return PULUMI


def version() -> str:
    """The version that go.mod asks for: without being told, the CLI would not know its own."""
    found = re.search(r"^\s*github\.com/pulumi/pulumi/pkg/v3 (v\S+)", _go_mod(), re.M)
    if found is None:
        raise EngineError(f"{MODULE / 'go.mod'} names no version of Pulumi")
    return found[1]


def _go_mod() -> str:
    return (MODULE / "go.mod").read_text()


def _go(*arguments: str) -> str:
    # Without C: one static program, and no C compiler needed.
    environment = os.environ | {"CGO_ENABLED": "0"}
    done = subprocess.run(
        ["go", *arguments], cwd=MODULE, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise EngineError(f"go {arguments[0]} failed in {MODULE}: {lines[-1]}")
    return done.stdout


if __name__ == "__main__":
    try:
        print(build())
    except EngineError as error:
        sys.exit(str(error))
