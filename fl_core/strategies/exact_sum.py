"""A sum of arrays whose result does not depend on the order of its terms.

Floating-point addition is not associative, integer addition is: each term is rounded once to a
fixed grid and kept in two 64-bit integers, as in reproducible summation on fixed bins (Demmel &
Nguyen 2015, https://doi.org/10.1109/TC.2014.2345391). Memory is 16 bytes a value, however many
terms. The rounding error of a term is at most 2**-60.
"""

from __future__ import annotations

import numpy as np

_HIGH = 2.0**10
_LOW = 2.0**60
LARGEST = 2.0**39
"""Terms of this size or more are refused."""
MOST_TERMS = 2**13
_BLOCK = 1 << 16


class ExactSum:
    """The sum of weighted float arrays of one shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        size = int(np.prod(shape))
        self._high = np.zeros(size, dtype=np.int64)
        self._low = np.zeros(size, dtype=np.int64)
        self._terms = 0

    def add(self, array: np.ndarray, weight: int) -> None:
        """Add ``array * weight``. Raises OverflowError for a term of :data:`LARGEST` or more."""
        if self._terms == MOST_TERMS:
            raise OverflowError(f"more than {MOST_TERMS} terms")
        flat = array.reshape(-1)
        limit = LARGEST / weight
        # float: the limit does not fit into a float16, as which numpy would compare.
        if flat.size and not (float(flat.min()) > -limit and float(flat.max()) < limit):
            raise OverflowError(f"values of {limit:g} or more at weight {weight}")
        for start in range(0, flat.size, _BLOCK):  # blocks stay in the processor's cache
            part = slice(start, start + _BLOCK)
            term = flat[part].astype(np.float64) * weight
            high = np.rint(term * _HIGH)
            self._high[part] += high.astype(np.int64)
            self._low[part] += np.rint((term - high / _HIGH) * _LOW).astype(np.int64)
        self._terms += 1

    def divided(self, divisor: int) -> np.ndarray:
        """The sum divided by ``divisor``: float64."""
        total = self._high / _HIGH + self._low / _LOW
        return (total / divisor).reshape(self.shape)
