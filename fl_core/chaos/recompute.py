"""The state of a finished run, made again in one process, without any transport.

Each fit that counted is done once more: the same state, table and context give the same update, bit
for bit. Which ones counted stands in rounds.jsonl.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from fl_core.errors import RunFolderError
from fl_core.job import Job
from fl_core.model import FitContext, Update
from fl_core.preprocessing import Scaling
from fl_core.roles import answers
from fl_core.runs import ROUNDS_FILE, Run
from fl_core.seeding import derive
from fl_core.state import State

Counted = dict[int, list[tuple[str, int]]]
"""By round: the updates that its state is made of, each by silo and the round of its state."""


class Unknown(Exception):
    """What the run's state is cannot be told from what it wrote down."""


def counted(run: Run) -> Counted:
    """What counted in which round. Raises RunFolderError.

    Where an aggregator was killed and began a round anew, only what came of it in the end.
    """
    path = run.folder / ROUNDS_FILE
    found: Counted = {}
    try:
        for line in path.read_text().splitlines():
            fields = json.loads(line)
            found = {round: updates for round, updates in found.items() if round < fields["round"]}
            found[fields["round"]] = [(one["silo"], one["round"]) for one in fields["updates"]]
    except (OSError, ValueError, LookupError) as error:
        raise RunFolderError(f"{path} cannot be read: {error!r}", "restore it") from error
    return found


@dataclass(frozen=True)
class _Given:
    """What silos were sent for the fit of a round."""

    state: State
    shared: State


class Recomputation:
    """Does a run's fits again. ``job`` must be one of its own: its strategy is used up."""

    def __init__(self, job: Job, scaling: Scaling) -> None:
        self._job = job
        self._spec = job.spec
        keep = job.model.accepts_missing
        self._tables = {
            silo: scaling.apply(job.load(silo).train, keep) for silo in job.spec.silo_names
        }

    def state(self, rounds: Counted, last: int) -> State:
        """The state after the round ``last``. Raises Unknown, FlError."""
        strategy = self._job.strategy
        strategy.begin_run(self._spec.silo_names)
        state = self._job.model.initial_state(derive(self._spec.seed, "init"))
        given: dict[int, _Given] = {}
        for round in range(1, last + 1):
            strategy.start(state)
            given[round] = _Given(state, strategy.shared())
            for silo, base in sorted(rounds[round]):
                update = self._update(given[base], silo, base)
                if self._spec.staleness is not None:
                    update = self._rebased(update, given[base].state, state, round - base)
                strategy.check(update)
                strategy.add(f"{silo}@{base}" if base < round else silo, update)
            state = strategy.finish()
        return state

    def _update(self, given: _Given, silo: str, round: int) -> Update:
        seed = derive(self._spec.seed, "fit", silo, round)
        options = self._job.strategy.fit_options()
        context = FitContext(round, silo, seed, options, shared=given.shared)
        update = self._job.model.fit(given.state, self._tables[silo], context)
        if update.memory:  # also of fits that did not count, which are written down nowhere
            raise Unknown("the model keeps something in its silos from fit to fit")
        return update

    def _rebased(self, update: Update, base: State, state: State, late: int) -> Update:
        """As silo and aggregator make it: the change from ``base``, laid over ``state``."""
        assert self._spec.staleness is not None
        changes = {name: array - base[name] for name, array in update.state.items()}
        moved = answers.Trained(replace(update, state=changes), 0.0)
        return answers.rebased(moved, state, self._spec.staleness.discount(late)).update
