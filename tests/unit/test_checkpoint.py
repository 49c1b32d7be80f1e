"""Checkpoints: written whole, found again, and passed over when they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core import checkpoint
from fl_core.checkpoint import Checkpoint
from fl_core.errors import RunFolderError, StorageError

BLOBS = {"state": b"\0\1" * 500, "rest": b""}


def saved(folder: Path, *rounds: int) -> None:
    for round in rounds:
        checkpoint.save(folder, Checkpoint(round, {"n": round}, BLOBS))


def test_the_latest_is_what_was_saved(tmp_path: Path) -> None:
    saved(tmp_path / "c", 1, 2)
    assert checkpoint.latest(tmp_path / "c") == Checkpoint(2, {"n": 2}, BLOBS)
    assert checkpoint.latest(tmp_path / "c", before=2) == Checkpoint(1, {"n": 1}, BLOBS)


def test_nothing_saved_is_nothing_found(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "c") is None
    (tmp_path / "c").mkdir()
    assert checkpoint.latest(tmp_path / "c") is None


def test_the_one_before_stays_and_those_that_are_asked_for(tmp_path: Path) -> None:
    for round in range(1, 8):
        checkpoint.save(tmp_path, Checkpoint(round), keep={3})
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "round-000003.ckpt",
        "round-000006.ckpt",
        "round-000007.ckpt",
    ]


@given(data=st.data())
def test_a_damaged_one_is_passed_over_for_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("c")
    saved(folder, 1, 2)
    file = checkpoint.path(folder, 2)
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    assert checkpoint.latest(folder) == Checkpoint(1, {"n": 1}, BLOBS)
    with pytest.raises(RunFolderError, match="no whole checkpoint"):
        checkpoint.load(folder, 2)


def test_what_a_killed_writer_has_left_is_no_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    checkpoint.path(tmp_path, 2).with_suffix(".part").write_bytes(b"FLCKPT01 half")
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.round == 1


def test_a_disk_that_refuses_is_told_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        saved(tmp_path / "c", 1)
    assert (tmp_path / "c").read_text() == "in the way"


def test_all_are_removed_once_there_is_a_result(tmp_path: Path) -> None:
    saved(tmp_path / "c", 1)
    checkpoint.remove(tmp_path / "c")
    checkpoint.remove(tmp_path / "c")
    assert not (tmp_path / "c").exists()
