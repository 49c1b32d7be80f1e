"""Writing files so that none is ever half-written, with errors that say what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_core.errors import StorageError


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an OSError about ``path`` into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}",
            "free space, or choose a folder that can be written with --out",
        ) from error


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all. Raises StorageError."""
    part = path.with_name(f".{path.name}.part")
    with storing(path):
        try:
            with part.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
