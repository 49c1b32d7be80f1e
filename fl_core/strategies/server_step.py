"""The step that a server's optimiser makes from one global state to the next."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fl_core.state import State, check_finite


def difference(state: State, start: State) -> State:
    """``state - start`` in float64."""
    # asarray: numpy makes numbers of arrays without dimensions.
    return {
        name: np.asarray(state[name].astype(np.float64) - array) for name, array in start.items()
    }


def moved(state: State, step: Mapping[str, np.ndarray]) -> State:
    """``state + step``, added in float64, in the state's types.

    Raises UpdateError when a value leaves its type's range.
    """
    result: State = {}
    for name, array in state.items():
        with np.errstate(over="ignore", invalid="ignore"):  # what follows from it is refused below
            result[name] = np.asarray(array.astype(np.float64) + step[name]).astype(array.dtype)
    check_finite(result, "the next global state")
    return result
