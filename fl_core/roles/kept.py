"""A state that a silo keeps from round to round, in its own folder, also over a restart."""

from __future__ import annotations

from pathlib import Path

from fl_core import checkpoint
from fl_core import state as states
from fl_core.checkpoint import Checkpoint

_STATE = "state"


def keep(folder: Path, round: int, encoded: bytes) -> None:
    """Keep the encoded state of ``round``. Raises StorageError."""
    checkpoint.save(folder, Checkpoint(round, {}, {_STATE: encoded}))


def before(folder: Path, round: int) -> states.State:
    """What was kept last before ``round``: a round that is repeated finds it too. Empty: nothing.

    Raises UpdateError when it is none of this version.
    """
    saved = checkpoint.latest(folder, before=round)
    if saved is None:
        return {}
    blob = bytes(saved.blobs[_STATE])
    return states.decode(blob, len(blob))
