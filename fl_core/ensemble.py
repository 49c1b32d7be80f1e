"""The state of an additive ensemble: members that silos trained, each with a weight.

A member is opaque to the aggregator: bytes (uint8) that only the model plugin understands. The
ensemble's margin is the sum of its members' margins, each times its weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fl_core.errors import UpdateError
from fl_core.state import State

MEMBER = "member"
WEIGHTS = "member_weights"


def empty() -> State:
    """An ensemble without members."""
    return {WEIGHTS: np.zeros(0, dtype=np.float64)}


def members(state: State) -> list[tuple[bytes, float]]:
    """The members' bytes and weights, in the order in which they were added.

    Raises UpdateError when ``state`` is no ensemble.
    """
    weights = state.get(WEIGHTS, np.full(1, np.nan))
    wanted = {WEIGHTS} | {_name(i) for i in range(weights.size)}
    if state.keys() != wanted or weights.ndim != 1 or not (weights >= 0).all():
        raise UpdateError(
            "the state is not an ensemble of members and weights", "the sender is at fault"
        )
    return [(state[_name(i)].tobytes(), float(weight)) for i, weight in enumerate(weights)]


def extended(state: State, added: Sequence[tuple[np.ndarray, float]]) -> State:
    """``state`` with members appended; each is given as uint8 of shape (k,) and a weight."""
    result = dict(state)
    start = len(state[WEIGHTS])
    for i, (member, _) in enumerate(added):
        result[_name(start + i)] = member
    result[WEIGHTS] = np.concatenate([state[WEIGHTS], [weight for _, weight in added]])
    return result


def as_update(member: bytes) -> State:
    """A new member as the arrays of an update."""
    return {MEMBER: np.frombuffer(member, dtype=np.uint8)}


def check_update(state: State) -> None:
    """Raise UpdateError unless ``state`` is exactly one new member."""
    member = state.get(MEMBER)
    if set(state) != {MEMBER} or member is None or member.dtype != np.uint8 or member.ndim != 1:
        raise UpdateError(
            "update is not one member of an ensemble",
            "this strategy needs a model that sends ensemble.as_update(bytes)",
        )
    if member.size == 0:
        raise UpdateError("update is empty", "see the silo's log")


def _name(index: int) -> str:
    return f"{MEMBER}.{index:06d}"
