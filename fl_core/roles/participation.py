"""From a run's spec to what the round engine is given: its rules, and who trains in a round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fl_core.role import PATIENCE_SECONDS
from fl_core.rounds import Rules
from fl_core.seeding import derive
from fl_core.spec import RunSpec


def rules(spec: RunSpec) -> Rules:
    """The rules that the spec sets."""
    quorum = spec.quorum
    return Rules(
        rounds=spec.rounds,
        min_silos=spec.min_silos,
        deadline=quorum.deadline,
        grace=quorum.grace,
        below=quorum.below,
        retries=spec.retries,
        most_late=spec.most_late,
        asynchronous=spec.asynchronous is not None,
        patience=PATIENCE_SECONDS,
    )


def select(spec: RunSpec, round: int, silos: Sequence[str]) -> Sequence[str]:
    """Those of ``silos``, sorted, that are drawn for a round.

    All of the run's silos are put in an order by the seed; the first of them that are there train.
    So who else is there changes nothing for a silo but its place in the order.
    """
    if spec.fraction == 1:
        return silos
    random = np.random.default_rng(derive(spec.seed, "select", round))
    order = [spec.silo_names[i] for i in random.permutation(len(spec.silo_names))]
    present = set(silos)
    return sorted([silo for silo in order if silo in present][: spec.drawn])
