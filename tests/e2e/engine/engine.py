"""A Pulumi project in a workspace of its own: ``Workspace(folder, project).pulumi("up", "--yes")``.

All that an engine keeps lies in the workspace: state, home, passphrase, and the stack's settings,
which ``stack init`` writes into. Therefore the project is a copy.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .build import BIN, PULUMI, ROOT, build
from .cloud.store import VARIABLE as CLOUD
from .errors import EngineError
from .result import Result

LANGUAGE = {"pulumi-language-python": "tests.e2e.engine.language_host"}
PROVIDERS = {
    "pulumi-resource-kubernetes": "tests.e2e.engine.kubernetes_provider",
    "pulumi-resource-tls": "tests.e2e.engine.tls_provider",
}
# A cloud that is one file: nothing real is to be reached from it.
CLOUD_PROVIDERS = {
    "pulumi-resource-aws": "tests.e2e.engine.cloud.aws_provider",
    "pulumi-resource-eks": "tests.e2e.engine.cloud.eks_provider",
    "pulumi-resource-kubernetes": "tests.e2e.engine.cloud.kubernetes_provider",
}
COPIED = ("Pulumi.yaml", "infra", "stacks")
MINUTES = 60.0
GRACE = 30.0
LOOK = 0.05
"""Seconds between looks whether what ``interrupt`` waits for has come."""


@dataclass(frozen=True)
class Programs:
    """The ``pulumi`` to use, and whether its plugins are this folder's doubles."""

    pulumi: Path
    doubles: bool


def programs(may_build: bool = False) -> Programs:
    """An installation on PATH, or what is built here.

    Raises EngineError where there is neither; with ``may_build`` only when building fails.
    """
    found = shutil.which("pulumi")
    # An installation has a language host beside it; the one built here has none.
    if found and shutil.which("pulumi-language-python"):
        return Programs(Path(found), doubles=False)
    if may_build:
        return Programs(build(), doubles=True)
    if PULUMI.exists():
        return Programs(PULUMI, doubles=True)
    raise EngineError("no pulumi on PATH, and none built: python -m tests.e2e.engine.build")


def copy_project(root: Path, folder: Path) -> None:
    """Copy a project: Pulumi.yaml, infra, stacks, and every file that a stack's settings name.

    Its virtual environment is linked to.
    """
    folder.mkdir(parents=True)
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(
                root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        elif (root / name).exists():
            shutil.copy(root / name, folder / name)
    for settings in sorted((root / "stacks").glob("*.yaml")):
        for name in _strings(yaml.safe_load(settings.read_text())):
            source = root / name
            if name and not Path(name).is_absolute() and source.is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / name)
    if (root / ".venv").exists():
        (folder / ".venv").symlink_to((root / ".venv").resolve())


class Workspace:
    """A copy of a project, and an engine that leaves nothing outside of ``folder``."""

    def __init__(
        self,
        folder: Path,
        project: Path,
        environment: Mapping[str, str] | None = None,
        may_build: bool = False,
        wrap: Callable[[list[str]], list[str]] = list,
        cloud: Path | None = None,
    ) -> None:
        """``project``: the folder to copy. ``environment``: added to this process's own.

        ``wrap``: makes the command of a command, for a cluster whose network is not this process's.
        ``cloud``: the file of a make-believe cloud; all providers are then doubles that know it.
        """
        self.folder = folder
        self.project = folder / "project"
        self.programs = programs(may_build)
        self._wrap = wrap
        copy_project(project, self.project)
        self.state = folder / "state"
        self.state.mkdir()
        passphrase = folder / "passphrase"
        passphrase.touch(0o600)
        passphrase.write_text(secrets.token_urlsafe(32))
        own = {
            "PULUMI_BACKEND_URL": self.state.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        doubles = LANGUAGE | PROVIDERS if self.programs.doubles else {}
        if cloud is not None:
            doubles = doubles | PROVIDERS | CLOUD_PROVIDERS
            own[CLOUD] = str(cloud)
        if doubles:
            home = folder / "home"
            home.mkdir()
            path = [str(self._launchers(doubles)), os.environ.get("PATH", os.defpath), str(BIN)]
            own |= {
                "PULUMI_HOME": str(home),
                "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
                "PATH": os.pathsep.join(path),
            }
        # A passphrase or backend of the developer's own is no business of a test.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PULUMI_") or (name == "PULUMI_HOME")
        }
        self.environment = kept | own | dict(environment or {})

    def pulumi(self, *arguments: str, given: str = "", timeout: float = 10 * MINUTES) -> Result:
        """Run ``pulumi`` in the project, with ``given`` as its standard input.

        Past ``timeout`` seconds, subprocess.TimeoutExpired is raised.
        """
        command = [str(self.programs.pulumi), "--non-interactive", "--color", "never", *arguments]
        process = subprocess.Popen(
            self._wrap(command),
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                out, err = process.communicate(given, timeout)
            except subprocess.TimeoutExpired:
                # As a user's Ctrl-C: killed at once, it would leave its plugins and a locked stack.
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
            except BaseException:
                process.kill()
                raise
        return Result(process.returncode, out, err)

    def checked(self, *arguments: str, given: str = "", timeout: float = 10 * MINUTES) -> Result:
        """``pulumi``; raises EngineError with all that it said where it fails."""
        result = self.pulumi(*arguments, given=given, timeout=timeout)
        if result.code:
            said = f"{result.out}\n{result.err}"
            raise EngineError(f"pulumi {shlex.join(arguments)} ended with {result.code}:\n{said}")
        return result

    def interrupt(
        self,
        *arguments: str,
        when: Callable[[], bool],
        kill: bool = False,
        timeout: float = 2 * MINUTES,
    ) -> Result:
        """Run ``pulumi`` until ``when()``, and interrupt it then, as Ctrl-C does; or kill it.

        Raises EngineError where it ends before that, or where that does not come in time.
        """
        said = [self.folder / f"interrupted.{stream}" for stream in ("out", "err")]
        command = [str(self.programs.pulumi), "--non-interactive", "--color", "never", *arguments]
        with said[0].open("w") as out, said[1].open("w") as err:
            process = subprocess.Popen(
                self._wrap(command),
                cwd=self.project,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            with process:
                came = _wait(process, when, timeout)
                process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
        result = Result(process.returncode, *(file.read_text() for file in said))
        if not came:
            problem = f"pulumi {shlex.join(arguments)} was to be interrupted and was not"
            raise EngineError(f"{problem}:\n{result.out}\n{result.err}")
        return result

    def init(self, stack: str) -> None:
        """Make a stack and select it."""
        self.checked("stack", "init", stack, "--secrets-provider", "passphrase")

    def set_secret(self, key: str, value: str) -> None:
        """Set a secret of the stack: not on the command line, where every process could read it."""
        self.checked("config", "set", "--secret", key, given=value)

    def outputs(self, show_secrets: bool = False) -> dict[str, Any]:
        """The stack's outputs; secret ones are ``[secret]`` unless shown."""
        shown = ["--show-secrets"] if show_secrets else []
        return json.loads(self.checked("stack", "output", "--json", *shown).out)

    def resources(self) -> list[dict[str, Any]]:
        """The resources as the state file has them: secrets encrypted."""
        return json.loads(self.checked("stack", "export").out)["deployment"].get("resources", [])

    def state_text(self) -> str:
        """All that is written in the state's files, to look for what should not be there."""
        files = sorted(file for file in self.state.rglob("*") if file.is_file())
        return "\n".join(file.read_text(errors="replace") for file in files)

    def _launchers(self, doubles: Mapping[str, str]) -> Path:
        """A folder with a program for each double, to be found on PATH."""
        folder = self.folder / "bin"
        folder.mkdir()
        for name, module in doubles.items():
            # Not by PYTHONPATH: the program would inherit it, and import what it otherwise cannot.
            code = f"import sys; sys.path[0] = {str(ROOT)!r}; from {module} import main; main()"
            launcher = folder / name
            line = shlex.join([sys.executable, "-c", code])
            launcher.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
            launcher.chmod(0o755)
        return folder


def _wait(process: subprocess.Popen[Any], when: Callable[[], bool], timeout: float) -> bool:
    """Whether ``when`` came while the process ran and the time lasted."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if when():
            return True
        try:
            process.wait(LOOK)
        except subprocess.TimeoutExpired:
            continue
        return False
    return False


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
