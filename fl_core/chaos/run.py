"""A run under faults, and whether it ended as promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fl_core import local
from fl_core import state as states
from fl_core.chaos.recompute import Counted, Recomputation, Unknown, counted
from fl_core.chaos.schedule import AGGREGATOR, Fault, Rules, Schedule, random_schedule
from fl_core.chaos.supervisor import Chaos
from fl_core.errors import FlError, SpecError, nearest
from fl_core.job import Job
from fl_core.plugins import Plugins
from fl_core.preprocessing import Moments, Scaling
from fl_core.runs import Run
from fl_core.spec import RunSpec

COMPLETED, BELOW, WAITING, CUT_OFF, BROKEN = (
    "completed", "below quorum", "waiting", "cut off", "broken",
)  # fmt: skip


PACE = 0.02
"""Of a drawn schedule's seconds: rounds on one machine are so much faster than those it is for."""


@dataclass(frozen=True)
class Ending:
    """How a run ended: ``broken`` is what no run may come to. ``reason`` says why."""

    end: str
    reason: str = ""
    recomputed: bool | None = None
    """Whether the model is the one made of the updates that counted; None: it was not compared."""

    @property
    def promised(self) -> bool:
        """Whether the run kept its promise."""
        return self.end != BROKEN and self.recomputed is not False


def rules(spec: RunSpec) -> Rules:
    """What a schedule must know of a run."""
    return Rules(
        silos=spec.silo_names,
        rounds=spec.rounds,
        min_silos=spec.min_silos,
        deadline=spec.quorum.deadline,
        grace=spec.quorum.grace,
        below=spec.quorum.below,
        retries=spec.retries,
        most_late=spec.most_late,
        asynchronous=spec.asynchronous is not None,
        fraction=spec.fraction,
    )


def drawn(seed: int, spec: RunSpec) -> Schedule:
    """The faults that the seed draws for a run."""
    faults = random_schedule(seed, rules(spec)).faults
    return Schedule(tuple(_faster(fault) for fault in faults))


def _faster(fault: Fault) -> Fault:
    times = {name: getattr(fault, name) for name in ("at", "back", "by")}
    return replace(
        fault, **{name: round(PACE * value, 3) for name, value in times.items() if value}
    )


def check(schedule: Schedule, spec: RunSpec) -> None:
    """Raise SpecError where the schedule is not one of this run's."""
    known = [*spec.silo_names, AGGREGATOR]
    for fault in schedule.faults:
        if fault.who not in known:
            raise SpecError(f"schedule: who is {fault.who!r}", nearest(fault.who, known))


def run(
    job: Job,
    plugins: Plugins,
    run_id: str,
    folder: Path,
    spec_folder: Path,
    schedule: Schedule,
    on_event: local.OnEvent,
    chaos: Callable[[Schedule, RunSpec, local.OnEvent], Chaos] = Chaos,
) -> Ending:
    """Run a job in ``folder`` as :func:`fl_core.local.run` does, under the schedule's faults.

    ``job``'s strategy is used up. Raises FlError for what has nothing to do with faults.
    """
    check(schedule, job.spec)
    playing = chaos(schedule, job.spec, on_event)
    try:
        finished = local.run(
            job, plugins, run_id, folder, spec_folder, 0, playing.saw, supervisor=playing
        )
    except FlError as error:
        return _ended(playing.error or error, playing, job.spec)
    finally:
        playing.proxy.close()
    return _completed(finished, playing, job)


def _completed(run: Run, playing: Chaos, job: Job) -> Ending:
    rounds = counted(run)
    last = playing.last_round or max(rounds)
    if wrong := _miscounted(rounds, job.spec):
        return Ending(BROKEN, wrong)
    _, scaling = run.preprocessing()
    parts = [Moments.of(job.load(silo).train) for silo in playing.known]
    pooled = Scaling.pooled(parts)
    if not (
        np.array_equal(pooled.mean, scaling.mean)
        and np.array_equal(pooled.deviation, scaling.deviation)
    ):
        return Ending(BROKEN, f"the scaling is not that of {', '.join(playing.known)}")
    try:
        state = Recomputation(job, scaling).state(rounds, last)
    except Unknown as unknown:
        return Ending(COMPLETED, str(unknown))
    same = states.fingerprint(state) == states.fingerprint(run.state())
    reason = "" if same else "the model is not the one that the updates make that counted"
    return Ending(COMPLETED, reason, same)


def _miscounted(rounds: Counted, spec: RunSpec) -> str:
    """What is wrong with which updates counted; empty if nothing is."""
    seen: set[tuple[str, int]] = set()
    if sorted(rounds) != list(range(1, len(rounds) + 1)):
        return f"rounds {sorted(rounds)} have been aggregated"
    for round, updates in rounds.items():
        for silo, base in updates:
            if (silo, base) in seen:
                return f"the update of {silo} of round {base} counts twice"
            if not 0 <= round - base <= spec.most_late:
                return f"the update of {silo} of round {base} counts in round {round}"
            seen.add((silo, base))
        late_too = spec.asynchronous is not None
        enough = sum(late_too or base == round for _, base in updates)
        if enough < (spec.min_silos if late_too else 1):
            return f"round {round} has {enough} updates that the quorum counts"
    return ""


def _ended(error: FlError, playing: Chaos, spec: RunSpec) -> Ending:
    """Without a model: for a true reason, or not. Raises ``error`` where no fault is behind it."""
    hit = {fault.who for fault in playing.hit}
    for_ever = {fault.who for fault in playing.hit if _for_ever(fault)}
    if playing.waited:
        left = [silo for silo in spec.silo_names if silo not in for_ever]
        if len(left) < spec.min_silos:
            return Ending(WAITING, f"only {len(left)} of {spec.min_silos} silos are left")
        return Ending(BROKEN, f"the run waits, although these are there: {', '.join(left)}")
    if AGGREGATOR in for_ever:
        return Ending(CUT_OFF, "the aggregator was not to come back")
    if playing.silent:
        return Ending(BROKEN, error.message)
    if "that the quorum needs" in error.message:
        missing = {silo for silo in spec.silo_names if silo in hit or silo not in playing.came}
        if AGGREGATOR in hit or len(missing) > spec.drawn - spec.min_silos:
            return Ending(BELOW, error.message)
        return Ending(BROKEN, f"with faults of {sorted(missing)} alone: {error.message}")
    if error.exit_code == 130 or not playing.hit:
        raise error
    return Ending(BROKEN, error.message)


def _for_ever(fault: Fault) -> bool:
    """Whether it may keep a silo from taking part for good."""
    return fault.what == "corrupt" or (fault.what != "readmit" and fault.back is None)
