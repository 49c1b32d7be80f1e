"""Checkpoints: written whole, found again, and passed over when they are damaged."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core import checkpoint
from fl_core.checkpoint import Checkpoint, Writer
from fl_core.errors import RunFolderError, StorageError

BLOBS = {"state": b"\0\1" * 500, "rest": b""}
LARGE = {"state": bytes(checkpoint.LARGE_BYTES)}
WAIT = 20.0


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


@pytest.mark.parametrize("whole", [1, 2, 3, 4, 5])
def test_one_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    saved(tmp_path, *range(1, whole + 1))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="full"):
            saved(tmp_path, whole + 1)
    assert checkpoint.latest(tmp_path) == Checkpoint(whole, {"n": whole}, BLOBS)
    saved(tmp_path, whole + 1)
    assert checkpoint.latest(tmp_path) == Checkpoint(whole + 1, {"n": whole + 1}, BLOBS)


def test_after_damage_the_one_that_was_gone_back_to_stays_until_the_next_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1, 2, 3)
    checkpoint.path(tmp_path, 3).write_bytes(b"damaged")
    seen = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(checkpoint.latest(tmp_path))
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", look)
        saved(tmp_path, 3)
    assert seen[0] == Checkpoint(2, {"n": 2}, BLOBS)
    assert checkpoint.latest(tmp_path) == Checkpoint(3, {"n": 3}, BLOBS)


@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=8))
def test_a_shorter_one_is_as_whole_as_a_longer_one(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("c")
    for round, size in enumerate(sizes):
        written = Checkpoint(round, {}, {"state": bytes([round]) * size})
        checkpoint.save(folder, written)
        assert checkpoint.latest(folder) == written
    assert len(list(folder.iterdir())) <= 2


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


@contextmanager
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is synced before the event is set; the block's end sets it."""
    goes_on = threading.Event()
    fsync = os.fsync

    def wait(descriptor: int) -> None:
        assert goes_on.wait(WAIT)
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", wait)
        try:
            yield goes_on
        finally:
            goes_on.set()


def test_a_small_one_is_written_when_save_returns(tmp_path: Path) -> None:
    writer = Writer(tmp_path, lambda: None)
    writer.save(Checkpoint(1, {}, BLOBS))
    assert writer.written.done()
    assert checkpoint.latest(tmp_path) == Checkpoint(1, {}, BLOBS)


def test_a_large_one_is_written_while_its_owner_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path, lambda: None)
    with slow_disk(monkeypatch):
        writer.save(Checkpoint(1, {}, LARGE))
        assert not writer.written.done()
        assert checkpoint.latest(tmp_path) is None
        writer.check()
    writer.written.result(WAIT)
    assert checkpoint.latest(tmp_path) == Checkpoint(1, {}, LARGE)


def test_the_next_one_waits_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path, lambda: None)
    with slow_disk(monkeypatch) as goes_on:
        writer.save(Checkpoint(1, {}, LARGE))
        first = writer.written
        threading.Timer(0.05, goes_on.set).start()
        writer.save(Checkpoint(2, {}, BLOBS))
        assert first.done()
    assert checkpoint.latest(tmp_path) == Checkpoint(2, {}, BLOBS)


def test_that_a_large_one_cannot_be_written_is_told(tmp_path: Path) -> None:
    failed = threading.Event()
    folder = tmp_path / "c"
    folder.write_text("in the way")
    writer = Writer(folder, failed.set)
    writer.save(Checkpoint(1, {}, LARGE))
    assert failed.wait(WAIT)
    for call in (writer.check, writer.written.result, lambda: writer.save(Checkpoint(2))):
        with pytest.raises(StorageError, match="round-000001"):
            call()
