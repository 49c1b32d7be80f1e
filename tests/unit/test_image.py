"""How the image is built: what it is made of, and what is said where it cannot be."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.image import archives, base, build, tools
from tests.e2e.image.build import Wanted, check_room, inputs_of
from tests.e2e.image.tools import ROOT, ImageError, Tool, choose

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def argument(name: str) -> str:
    found = re.search(rf'^ARG {name}="?([^"\n]*)"?$', DOCKERFILE, re.MULTILINE)
    assert found
    return found[1]


def test_the_stand_in_has_the_name_of_the_dockerfiles_base():
    assert f"docker.io/library/{argument('BASE')}" == base.NAME


def test_the_plugins_are_the_dockerfiles():
    assert " ".join(build.PLUGINS) == argument("PLUGINS")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the image is made of, and of something that it is not."""
    for name in build.FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in (
        "fl_core/rounds.py",
        "fl_core/datasets/rows.csv",
        "fl_core/__pycache__/rounds.pyc",
        "plugins/mine/pyproject.toml",
        "plugins/mine/mine/model.py",
        "plugins/mine/tests/test_mine.py",
        "plugins/mine/build/model.py",
        "plugins/mine/mine.egg-info/PKG-INFO",
        "docs/page.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("Dockerfile", True),
        ("requirements/image.txt", True),
        ("fl_core/rounds.py", True),
        ("plugins/mine/pyproject.toml", True),
        ("plugins/mine/mine/model.py", True),
        ("fl_core/datasets/rows.csv", False),
        ("fl_core/__pycache__/rounds.pyc", False),
        ("plugins/mine/tests/test_mine.py", False),
        ("plugins/mine/build/model.py", False),
        ("plugins/mine/mine.egg-info/PKG-INFO", False),
        ("docs/page.md", False),
    ],
)
def test_it_is_built_again_when_a_file_has_changed_that_goes_into_it(checkout, file, counts):
    before = inputs_of(Wanted())
    (checkout / file).write_text("changed")
    assert (inputs_of(Wanted()) != before) == counts


@pytest.mark.parametrize(
    "other",
    [
        {"plugins": ("fl-core-mlp",)},
        {"torch_backend": "cpu"},
        {"base": "b"},
        {"labels": {"a": "b"}},
    ],
)
def test_it_is_built_again_when_something_else_is_wanted(checkout, other):
    assert inputs_of(Wanted(**other)) != inputs_of(Wanted())
    assert inputs_of(Wanted(image="another/name:1")) == inputs_of(Wanted())


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(plugins=("fl-core-mpl",)), "PLUGINS names 'fl-core-mpl', but plugins/ has: "),
        (Wanted(torch_backend="gpu"), "TORCH_BACKEND is 'gpu'"),
    ],
)
def test_what_cannot_be_built_is_told_before_anything_is_done(wanted, said):
    with pytest.raises(ImageError, match=said):
        build.build(Tool("false"), wanted)


def test_a_disk_that_would_fill_up_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(
        build.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5_400_000_000})()
    )
    check_room(Tool("false"), tmp_path, Wanted(torch_backend="cpu"))
    with pytest.raises(ImageError, match="has 5 GB free, and the build takes 14"):
        check_room(Tool("false"), tmp_path, Wanted())
    with pytest.raises(ImageError, match="takes 42"):
        check_room(Tool("false", environment={"STORAGE_DRIVER": "vfs"}), tmp_path, Wanted())


def test_a_tool_that_is_not_there_or_does_not_work_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="podman is not on PATH"):
        choose("podman")
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'no daemon' >&2; exit 1\n")
    docker.chmod(0o755)
    with pytest.raises(ImageError, match="no docker, podman or buildah that works"):
        choose()
    docker.write_text("#!/bin/sh\n")
    assert choose().name == "docker"


def test_the_end_of_what_a_tool_says_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    tool = tmp_path / "docker"
    tool.write_text(f"#!/bin/sh\necho 'no space left' >&2; echo '{'x' * 400}' >&2; exit 3\n")
    tool.chmod(0o755)
    with pytest.raises(ImageError) as caught:
        Tool("docker").run("build")
    assert "docker build failed: no space left\n" in str(caught.value)
    assert str(caught.value).endswith("x ...")
    assert not Tool("docker").has("image")
    assert Tool("docker").labels("image") == {}


def test_only_buildah_leaves_layers_out(tmp_path):
    with pytest.raises(ImageError, match="docker writes whole archives only"):
        archives.write(Tool("docker"), "image", tmp_path / "image.tar", without="other")


def test_the_stand_in_is_made_with_buildah_only():
    with pytest.raises(ImageError, match="made with buildah"):
        base.ensure(Tool("docker"))


def test_each_checkout_keeps_its_own_storage():
    assert tools.STORAGE.is_relative_to(ROOT / "build" / "e2e" / "image")
