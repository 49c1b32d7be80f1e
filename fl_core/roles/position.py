"""Where a run stands after a round, as the aggregator keeps it in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_core import checkpoint
from fl_core import state as states
from fl_core.checkpoint import Checkpoint
from fl_core.metrics import Scores
from fl_core.preprocessing import Moments, Scaling
from fl_core.roles.answers import Sums

FOLDER = "checkpoints"
_STATE, _REST = "state", "rest"
_SCALING, _SUMS, _STRATEGY, _TESTS = "scaling/", "sums/", "strategy/", "tests/"


@dataclass(frozen=True)
class Position:
    """After ``round``; all that the next round needs."""

    round: int
    state: states.State
    scaling: Scaling
    sums: Mapping[str, Sums]
    strategy: states.State
    """The strategy's memory."""
    aside: tuple[str, ...]
    best: Mapping[str, Any]
    tests: Mapping[str, Scores]
    """The test scores of the best round, by silo."""

    def checkpoint(self) -> Checkpoint:
        """What is to be written of it; its state stays where it lies."""
        rest = {_SCALING + name: array for name, array in self.scaling.as_state().items()}
        for silo, sums in self.sums.items():
            arrays = sums.moments.as_state()
            rest |= {f"{_SUMS}{silo}/{name}": array for name, array in arrays.items()}
        rest |= {_STRATEGY + name: array for name, array in self.strategy.items()}
        for silo, scores in self.tests.items():
            rest |= scores.as_state(_TESTS + silo)
        facts = {
            "rows": {silo: sums.rows for silo, sums in self.sums.items()},
            "aside": list(self.aside),
            "best": dict(self.best),
            "tests": list(self.tests),
        }
        blobs = {_STATE: states.laid_out(self.state), _REST: states.encode(rest)}
        return Checkpoint(self.round, facts, blobs)

    @classmethod
    def load(cls, folder: Path) -> Position | None:
        """The last position that was written whole; None when there is none."""
        saved = checkpoint.latest(folder / FOLDER)
        if saved is None:
            return None
        rest = _decoded(saved, _REST)
        sums = {
            silo: Sums(Moments(**states.under(rest, f"{_SUMS}{silo}/")), rows)
            for silo, rows in saved.facts["rows"].items()
        }
        return cls(
            saved.round,
            _decoded(saved, _STATE),
            Scaling(**states.under(rest, _SCALING)),
            sums,
            states.under(rest, _STRATEGY),
            tuple(saved.facts["aside"]),
            saved.facts["best"],
            {silo: Scores.from_state(rest, _TESTS + silo) for silo in saved.facts["tests"]},
        )


def state_of(folder: Path, round: int) -> states.State:
    """The global state after ``round``, whose checkpoint was kept. Raises RunFolderError."""
    return _decoded(checkpoint.load(folder / FOLDER, round), _STATE)


def _decoded(saved: Checkpoint, name: str) -> states.State:
    blob = bytes(saved.blobs[name])
    return states.decode(blob, len(blob))
