"""Files are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core.errors import DataError, StorageError
from fl_core.files import inside, storing, write_atomic


def everything(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def fails_with(code: int):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("data", [b"bytes\n", "text: é\n", b"", ""])
def test_bytes_and_text_are_written(tmp_path, data):
    path = tmp_path / "file.json"
    write_atomic(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert everything(tmp_path) == {"file.json"}


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "a longer old content")
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert everything(tmp_path) == {"file"}


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failing_disk_leaves_the_old_file_and_no_part(tmp_path, monkeypatch, failing, code):
    path = tmp_path / "file"
    write_atomic(path, "old")
    target = os if failing == "fsync" else Path
    with monkeypatch.context() as patch:
        patch.setattr(target, failing, fails_with(code))
        with pytest.raises(StorageError) as caught:
            write_atomic(path, "new")
    assert caught.value.message == f"cannot write {path}: {os.strerror(code)}"
    assert "--out" in caught.value.remedy
    assert path.read_text() == "old"
    assert everything(tmp_path) == {"file"}


def test_an_interrupt_leaves_no_part(tmp_path, monkeypatch):
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", "new")
    assert everything(tmp_path) == set()


@pytest.mark.parametrize("place", ["absent/file", "plain/file"])
def test_a_folder_that_is_not_there_is_named(tmp_path, place):
    (tmp_path / "plain").write_text("a file, not a folder")
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / place}: "):
        write_atomic(tmp_path / place, "x")
    assert everything(tmp_path) == {"plain"}


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        write_atomic(tmp_path / "folder", "x")
    assert everything(tmp_path) == {"folder"}


def test_only_errors_of_the_system_become_storage_errors(tmp_path):
    with pytest.raises(KeyError), storing(tmp_path):
        raise KeyError("x")
    with pytest.raises(StorageError, match="cannot write"), storing(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def inside_or_told(folder: Path, name: str) -> Path | None:
    """The path, or None where the name is refused as it should be."""
    told: DataError | None = None
    try:
        return inside(folder, name)
    except DataError as error:
        told = error
    assert f"{name!r:.200}" in told.message
    assert told.remedy
    return None


PARTS = st.sampled_from(
    ["", ".", "..", "a", "b", "out", "back", "loop", "...", "é", "\0", "a" * 300]
)


@given(st.lists(PARTS, max_size=6).map("/".join), st.booleans())
def test_a_name_leads_nowhere_but_below_the_folder(tmp_path_factory, name, absolute):
    top = tmp_path_factory.getbasetemp()
    folder = top / "folder"
    if not folder.exists():
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "out").symlink_to(top)
        (folder / "a" / "back").symlink_to("..")
        (folder / "loop").symlink_to("loop")
    name = f"/{name}" if absolute else name
    path = inside_or_told(folder, name)
    if path is not None:
        assert path == folder / name
        assert path.resolve().is_relative_to(folder.resolve())
        assert ".." not in name.split("/")


@given(st.text(max_size=30))
def test_any_name_is_below_the_folder_or_refused(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    path = inside_or_told(folder, name)
    assert path is None or path.resolve().is_relative_to(folder.resolve())


def test_a_folder_may_itself_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "real" / "rows.csv").touch()
    assert inside(tmp_path / "folder", "rows.csv").exists()
