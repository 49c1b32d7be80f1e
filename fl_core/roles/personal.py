"""The silo's own model beside the global one; it never leaves the silo."""

from __future__ import annotations

from pathlib import Path

from fl_core import state as states
from fl_core.dataset import Table
from fl_core.files import write_atomic
from fl_core.job import Job
from fl_core.model import FitContext
from fl_core.plugins import blamed
from fl_core.roles import kept
from fl_core.rules import Personalisation
from fl_core.seeding import derive

FOLDER = "personal"
MODEL_FILE = "personal.safetensors"
_DITTO_MU = 0.1
"""Within the range that Li et al. 2021 search, 0.05 to 2."""


class Personal:
    """Trains a state for one silo alone, as the run file asks."""

    def __init__(self, job: Job, rule: Personalisation, silo: str, folder: Path) -> None:
        self._job = job
        self._rule = rule
        self._silo = silo
        self._folder = folder

    def trained(self, state: states.State, round: int, table: Table) -> states.State:
        """The silo's own state beside the global ``state`` of ``round``; kept in its folder.

        Gives the same state when it is asked again, also in another process. Raises FlError.
        """
        start, options, anchor = state, {}, None
        if self._rule.method == "ditto":
            start = kept.before(self._folder / FOLDER, round) or state
            options = {"proximal_mu": _DITTO_MU if self._rule.mu is None else self._rule.mu}
            anchor = state
        seed = derive(self._job.spec.seed, "personal", self._silo, round)
        context = FitContext(round, self._silo, seed, options, anchor=anchor)
        what = f"silo {self._silo!r}: model {self._job.spec.model.name!r}"
        with blamed(f"{what} in the fit of its own state, round {round},"):
            update = self._job.model.fit(start, table, context)
        what = f"{what}, its own state, round {round}"
        states.check_same_form(update.state, state, what)
        states.check_finite(update.state, what)
        encoded = states.encode(update.state)
        if self._rule.method == "ditto":
            kept.keep(self._folder / FOLDER, round, encoded)
        write_atomic(self._folder / MODEL_FILE, encoded)
        return update.state
