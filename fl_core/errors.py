"""Typed errors. Each has a numbered exit code and a page ``docs/errors/CODE.md``.

A message says what is wrong and where (file, line, field, value); the remedy says what to do.
"""

from __future__ import annotations


class FlError(Exception):
    """Base of every error that a user is meant to read.

    ``message`` says what is wrong and where; ``remedy`` what to do about it.
    """

    exit_code = 70
    title = "internal error"

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def as_dict(self) -> dict[str, str | int]:
        """The error as JSON-able values, for ``--json``, the manifest and other processes."""
        return {
            "code": self.exit_code,
            "title": self.title,
            "message": self.message,
            "remedy": self.remedy,
        }


class SpecError(FlError):
    """A run file that is not a valid RunSpec."""

    exit_code = 10
    title = "run file"


class PluginError(FlError):
    """A plugin that is missing, fails to load, or collides with another."""

    exit_code = 11
    title = "plugin"


class ParameterError(FlError):
    """A parameter of a model, strategy or dataset that is unknown, out of bounds or unsupported."""

    exit_code = 12
    title = "parameter"


class DataError(FlError):
    """A silo's data or schema that cannot be used."""

    exit_code = 13
    title = "data"


class RunFolderError(FlError):
    """A run folder that exists already, is missing, or does not hold what it must."""

    exit_code = 14
    title = "run folder"


class TransportError(FlError):
    """A connection that cannot be made or is not allowed."""

    exit_code = 15
    title = "transport"


class RoleError(FlError):
    """A role that failed: a plugin raised, a process ended, a silo was lost."""

    exit_code = 16
    title = "role failed"


class UpdateError(FlError):
    """An update or score that was refused: not finite, wrong shape, too large."""

    exit_code = 17
    title = "update refused"


class StorageError(FlError):
    """A disk that is full, read-only or otherwise refuses to keep a file."""

    exit_code = 18
    title = "storage"


class CertificateError(FlError):
    """A party's certificate or key that is missing, expired, or does not fit."""

    exit_code = 19
    title = "certificate"


class ServiceError(FlError):
    """A coordinator or agent that refuses a request, or cannot start."""

    exit_code = 20
    title = "service"


class TrackingError(FlError):
    """A tracking service that cannot be written to, or read. Never ends a run."""

    exit_code = 21
    title = "tracking"


class Interrupted(FlError):
    """Ctrl-C or SIGTERM. 130 is the shell's own code for an interrupt."""

    exit_code = 130
    title = "interrupted"


ERRORS: dict[int, type[FlError]] = {
    kind.exit_code: kind
    for kind in (
        FlError,
        SpecError,
        PluginError,
        ParameterError,
        DataError,
        RunFolderError,
        TransportError,
        RoleError,
        UpdateError,
        StorageError,
        CertificateError,
        ServiceError,
        TrackingError,
        Interrupted,
    )
}


def from_dict(fields: dict[str, str | int]) -> FlError:
    """Rebuild an error that :meth:`FlError.as_dict` described, as another process saw it."""
    kind = ERRORS.get(int(fields["code"]), FlError)
    return kind(str(fields["message"]), str(fields["remedy"]))


def nearest(name: str, known: list[str]) -> str:
    """A remedy for a misspelt ``name``: the closest known one, and all of them."""
    import difflib

    listed = ", ".join(sorted(known)) or "none"
    close = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"available: {listed}"
