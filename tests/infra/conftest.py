"""A cluster that answers, and a federation of two silos."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from . import stacks
from .recording import Recording, record

ROWS = "age,disease\n41,no\n63,yes\n"
Config = dict[str, Any]


class _Forbids(BaseHTTPRequestHandler):
    """As an API server to whom nobody has logged in."""

    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def api_server() -> Iterator[str]:
    """The address of something that answers as a cluster does."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forbids) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def kubeconfig(server: str, **cluster: Any) -> Config:
    """A kubeconfig with one context."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "one", "user": "me"}}],
        "clusters": [{"name": "one", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "me", "user": {"token": "made-up"}}],
    }


@pytest.fixture(autouse=True)
def home(api_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose kubeconfig names the server, and no settings of the developer's own."""
    for name in [*os.environ]:
        if name.startswith(("KUBE", "PULUMI_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    (folder / ".kube").mkdir(parents=True)
    (folder / ".kube" / "config").write_text(yaml.safe_dump(kubeconfig(api_server)))
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A silo's file. Tests only read it."""
    file = tmp_path_factory.mktemp("data") / "rows.csv"
    file.write_text(ROWS)
    return file


@pytest.fixture
def federation(rows: Path) -> Config:
    """The configuration of one silo with a file and one with data in S3."""
    return {
        "federation": "heart",
        "image": "localhost/fl-silos:dev",
        "silos": [
            {"name": "north", "data": str(rows)},
            {"name": "south", "data": "s3://south-data/heart"},
        ],
    }


_RECORDED: dict[str, Recording] = {}


@pytest.fixture
def recording(federation: Config) -> Recording:
    """What the program makes of that configuration: the same in all tests, so made once."""
    if "federation" not in _RECORDED:
        _RECORDED["federation"] = record(federation)
    return _RECORDED["federation"]


def refused(config: Config, stack: str = "local") -> str:
    """The one line that the user sees."""
    made: list[str] = []
    original = pulumi.Resource.__init__

    def seen(self: pulumi.Resource, kind: str, *arguments: Any, **more: Any) -> None:
        made.append(kind)
        original(self, kind, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pulumi.Resource, "__init__", seen)
        with pytest.raises(pulumi.RunError) as caught:
            record(config, stack)
    assert made == ["pulumi:pulumi:Stack"], "something was made"
    line = str(caught.value)
    assert "\n" not in line
    assert "; " in line, "no remedy"
    return line


@pytest.fixture(params=stacks.AWS)
def stack(request: pytest.FixtureRequest) -> str:
    """Each stack on AWS in turn."""
    return request.param


@pytest.fixture
def made(stack: str) -> Recording:
    """What the stack makes."""
    return stacks.recorded(stack)
