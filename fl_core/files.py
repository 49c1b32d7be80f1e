"""Files that are written whole or not at all, and names that lead nowhere else."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from fl_core.errors import DataError, StorageError


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


def lock(path: Path) -> int | None:
    """Lock a file, which is made if need be; None while another process has it.

    Gives a descriptor: the lock lasts until that is closed, or the process ends. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


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


def inside(folder: Path, name: str) -> Path:
    """The path that ``name`` means below ``folder``, where ``name`` is somebody else's choice.

    Raises DataError for one that leads out of the folder: by its form, or over a symbolic link.
    """
    parts = PurePosixPath(name).parts
    problem = ""
    if "\0" in name:
        problem = "is no path"
    elif name.startswith("/"):
        problem = "is an absolute path"
    elif ".." in parts:
        problem = "holds '..'"
    else:
        try:
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                problem = "is a link that leads out of it"
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name of no file
            problem = f"cannot be followed: {error}"
    if problem:
        raise DataError(
            f"path {name!r:.200} {problem}; only files in {folder} may be named",
            "give a path that starts in that folder and stays there",
        )
    return folder / name
