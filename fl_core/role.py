"""What a role process is started with, and what it tells the process that started it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_core.spec import Choice, RunSpec
from fl_core.transport.identity import Identity

Tell = Callable[[dict[str, Any]], None]
"""Takes one event: a JSON-able object whose ``event`` says what it is."""

Order = dict[str, Any]
"""What the process that started an aggregator tells it: ``order`` is lost, with ``silo`` and
``reason``, when the silo's own process has ended; or readmit, with ``silo``."""
Orders = Callable[[Callable[[Order], None]], None]
"""Has each order given to a function, in a thread of its own, from now on."""

PATIENCE_SECONDS = 60.0
"""How long a silo may be without a stream before nobody waits for it."""


@dataclass(frozen=True)
class RoleConfig:
    """A role of one run. ``silo`` is None for the aggregator."""

    run_id: str
    spec: RunSpec
    spec_folder: Path
    """Where the run file's relative paths start."""
    folder: Path
    """The role's own folder: the run's for the aggregator, the silo's for a silo."""
    federation: str
    identity: Identity
    host: str
    port: int
    silo: str | None = None
    excluded: frozenset[str] = frozenset()
    """For the aggregator: silos and certificates that are turned away."""
    trackers: tuple[Choice, ...] = ()
    """Where this role's part is to be shown, as this party wants it."""
    resume: bool = False
    """For the aggregator: go on from the checkpoint in its folder, if there is one."""
    data: str | None = None
    """A silo's own data, a folder or an s3:// prefix; None where the run file says where it is."""

    @property
    def name(self) -> str:
        """``aggregator``, or ``silo NAME``."""
        return "aggregator" if self.silo is None else f"silo {self.silo}"
