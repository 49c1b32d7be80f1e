"""A silo's control variate under scaffold (Karimireddy et al. 2020, arXiv 1910.06378, option II).

The silo's own, c_i, is the float64 sum of the changes that it sent, which are in the state's types.
The server's c sums the same changes, and so stays the mean of the silos'.
"""

from __future__ import annotations

import numpy as np

from fl_core.state import State


def correction(shared: State, own: State) -> State:
    """``c - c_i``, which is added to each gradient, in the types of ``shared``."""
    return {name: (array - own[name]).astype(array.dtype) for name, array in shared.items()}


def change(state: State, trained: State, shared: State, length: float) -> State:
    """``(x - y_i) / length - c``, by which c_i changes, in the state's types.

    ``length`` is the number of steps times the learning rate. Values of a fit that diverged are not
    finite here either.
    """
    result: State = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for name, array in state.items():
            gradient = (array.astype(np.float64) - trained[name]) / length
            result[name] = (gradient - shared[name]).astype(array.dtype)
    return result


def changed(own: State, change: State) -> State:
    """The silo's control variate after ``change``; unchanged when that is not finite.

    The aggregator refuses such an update, and the next fit starts from what both agree upon.
    """
    if not all(np.isfinite(array).all() for array in change.values()):
        return own
    return {name: array + change[name] for name, array in own.items()}
