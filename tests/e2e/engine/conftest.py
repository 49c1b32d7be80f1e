"""Small Pulumi programs in workspaces of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.e2e.kubectl import Kubectl

from .build import ROOT
from .cloud import Cloud
from .engine import Workspace, programs
from .errors import EngineError

STACK = "local"
PROJECT = {
    "name": "trial",
    "main": "infra/",
    "stackConfigDir": "stacks",
    "runtime": {"name": "python", "options": {"virtualenv": ".venv"}},
}

MakeWorkspace = Callable[..., Workspace]


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """A make-believe AWS with nothing in it."""
    return Cloud(tmp_path / "cloud.db")


@pytest.fixture
def workspace(tmp_path: Path) -> MakeWorkspace:
    """``workspace(program, key=value)``: a stack of a program and its settings.

    With ``kubectl=``: where it reaches the cluster. With ``cloud=``: in a make-believe AWS.
    """
    try:
        programs()
    except EngineError as error:
        pytest.skip(str(error))

    def make(
        program: str,
        kubectl: Kubectl | None = None,
        cloud: Cloud | None = None,
        **settings: str,
    ) -> Workspace:
        project = tmp_path / "source"
        (project / "infra").mkdir(parents=True)
        (project / "stacks").mkdir()
        (project / "infra" / "__main__.py").write_text(program)
        (project / "Pulumi.yaml").write_text(yaml.safe_dump(PROJECT))
        config = {f"trial:{key}": value for key, value in settings.items()}
        (project / "stacks" / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump({"config": config}))
        (project / ".venv").symlink_to(ROOT / ".venv")
        made = Workspace(
            tmp_path / "workspace",
            project,
            wrap=kubectl.wrap if kubectl is not None else list,
            cloud=cloud.path if cloud is not None else None,
        )
        made.init(STACK)
        return made

    return make
