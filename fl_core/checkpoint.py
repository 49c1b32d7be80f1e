"""Checkpoints: what a role must find again when it is killed and started anew.

A file holds, in this order: a magic number, the length of a JSON header, the header (round, facts,
and the lengths of the blobs), the blobs, and the SHA-256 of all that. It is written beside its
place, synced and renamed, so that a kill at any moment leaves the one before it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fl_core.buffers import Buffers, Bytes
from fl_core.errors import RunFolderError
from fl_core.files import storing

_log = logging.getLogger(__name__)
_MAGIC = b"FLCKPT02"
_LENGTH_BYTES = 4
_DIGEST_BYTES = 32
LARGE_BYTES = 1024 * 1024
"""From here on a thread more costs less than what it does beside others."""
_NAME = re.compile(r"round-([0-9]{6,})\.ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after ``round``."""

    round: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able values."""
    blobs: Mapping[str, bytes | Buffers] = field(default_factory=dict)
    """Those of a checkpoint that was read are bytes."""

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(map(len, self.blobs.values()))


def path(folder: Path, round: int) -> Path:
    """The file of a round's checkpoint."""
    return folder / f"round-{round:06}.ckpt"


def save(folder: Path, checkpoint: Checkpoint, keep: Collection[int] = ()) -> None:
    """Write a checkpoint; of older ones stay the one before it, and those of the rounds ``keep``.

    Raises StorageError; then those before it are there still.
    """
    target = path(folder, checkpoint.round)
    header = {
        "round": checkpoint.round,
        "facts": checkpoint.facts,
        "blobs": {name: len(blob) for name, blob in checkpoint.blobs.items()},
    }
    encoded = json.dumps(header, allow_nan=False).encode()
    pieces = [_MAGIC, len(encoded).to_bytes(_LENGTH_BYTES, "big"), encoded]
    pieces += [piece for blob in checkpoint.blobs.values() for piece in Buffers.of(blob).parts]
    part = target.with_suffix(".part")
    with storing(target):
        folder.mkdir(mode=0o700, exist_ok=True)
        older = sorted(round for round in _rounds(folder) if round < checkpoint.round)[:-1]
        gone = [path(folder, round) for round in older if round not in keep]
        if gone:  # written over, which is faster than a new file, and another one's removal
            gone.pop().replace(part)
        with part.open("r+b" if part.exists() else "wb") as file:
            digest = _write(file, pieces)
            file.write(digest)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        _sync(folder)
        for checkpoint_file in gone:
            checkpoint_file.unlink(missing_ok=True)


class Writer:
    """Writes the checkpoints of one folder, large ones while its owner goes on.

    Their blobs must not change meanwhile. One is written at a time: the next one waits.
    """

    def __init__(self, folder: Path, on_failure: Callable[[], None]) -> None:
        """``on_failure``: called from another thread when a large one could not be written."""
        self._folder = folder
        self._on_failure = on_failure
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] = Future()
        self._last.set_result(None)

    def save(self, checkpoint: Checkpoint, keep: Collection[int] = ()) -> None:
        """As :func:`save`; a large one is written when :attr:`written` is done."""
        self._last.result()
        if checkpoint.size < LARGE_BYTES:
            save(self._folder, checkpoint, keep)
            return
        self._last = self._thread.submit(save, self._folder, checkpoint, keep)
        self._last.add_done_callback(self._done)

    @property
    def written(self) -> Future[None]:
        """Done when the last checkpoint is written; has the StorageError if that failed."""
        return self._last

    def check(self) -> None:
        """Raise the StorageError of a checkpoint that could not be written, without waiting."""
        if self._last.done():
            self._last.result()

    def _done(self, written: Future[None]) -> None:
        if written.exception() is not None:
            self._on_failure()


def latest(folder: Path, before: int | None = None) -> Checkpoint | None:
    """The newest checkpoint that is whole, of a round before ``before``; None when there is none.

    One that is not whole is passed over, with a warning in the log.
    """
    for round in sorted(_rounds(folder), reverse=True):
        if before is not None and round >= before:
            continue
        try:
            return load(folder, round)
        except RunFolderError as error:
            _log.warning("%s", error.message)
    return None


def load(folder: Path, round: int) -> Checkpoint:
    """The checkpoint of a round. Raises RunFolderError when it is missing or not whole."""
    file = path(folder, round)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise RunFolderError(f"{file} cannot be read: {error}", "restore it") from error
    body = memoryview(data)[:-_DIGEST_BYTES]
    if hashlib.sha256(body).digest() != data[-_DIGEST_BYTES:] or not data.startswith(_MAGIC):
        raise RunFolderError(f"{file} is no whole checkpoint (its SHA-256 differs)", "remove it")
    start = len(_MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(data[len(_MAGIC) : start], "big")
    header = json.loads(data[start:end])
    blobs = {}
    for name, length in header["blobs"].items():
        blobs[name] = data[end : end + length]
        end += length
    return Checkpoint(header["round"], header["facts"], blobs)


def remove(folder: Path) -> None:
    """Remove all checkpoints: the run has its result. Raises StorageError."""
    with storing(folder):
        shutil.rmtree(folder, ignore_errors=not folder.exists())


def _rounds(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = (_NAME.fullmatch(name) for name in names)
    return [int(name[1]) for name in found if name]


def _write(file: BinaryIO, pieces: Sequence[Bytes]) -> bytes:
    """Write the pieces; gives their digest."""
    if sum(len(piece) for piece in pieces) < LARGE_BYTES:
        file.writelines(pieces)
        return _sha256(pieces)
    with ThreadPoolExecutor(1) as other:
        digest = other.submit(_sha256, pieces)
        file.writelines(pieces)
        return digest.result()


def _sha256(pieces: Sequence[Bytes]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _sync(folder: Path) -> None:
    """Make a rename in ``folder`` outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
