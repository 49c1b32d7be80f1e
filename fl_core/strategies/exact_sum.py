"""Sums of arrays whose results do not depend on the order of their terms.

Floating-point addition is not associative, integer addition is: each term is rounded once to a
fixed grid and kept in 64-bit integers, as in reproducible summation on fixed bins (Demmel & Nguyen
2015, https://doi.org/10.1109/TC.2014.2345391). Memory does not grow with the number of terms.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fl_core import blocks

_HIGH = 2.0**10
_LOW = 2.0**60
LARGEST = 2.0**39
"""Terms of this size or more do not fit into an :class:`ExactSum`."""
MOST_TERMS = 2**12
_FINE = 2.0**-23
"""The grid of a :class:`GridSum`, in units of its scale."""
_MOST_STEPS = 2.0**51
"""Terms of fewer grid steps are integers that a sum with ``_SHIFT`` has exactly."""
_SHIFT = 1.5 * 2.0**52
_SHIFT_BITS = np.float64(_SHIFT).view(np.int64)
_BLOCK = 1 << 17
_MANY = 8
"""Blocks that are shared among threads; fewer are done before these have started."""
_MOST_THREADS = 4


class _Sum(ABC):
    """A sum of float arrays, each with an integer weight.

    Its first term is kept as it is, in the same memory, until there is a second one: a mean of one
    array is that array.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._size = int(np.prod(shape))
        self._terms = self._weight = 0
        self._sum = np.zeros(0, np.int64)
        self._first = np.zeros(0)
        """The values of the only term, in the memory of ``_sum``."""

    @abstractmethod
    def limit(self, weight: int) -> float:
        """The least absolute value that does not fit at this weight."""

    def fits(self, array: np.ndarray, weight: int) -> bool:
        """Whether every value is below the limit; NaN is not."""
        limit = self.limit(weight)
        flat = array.reshape(-1)
        # float: the limit does not fit into a float16, as which numpy would compare.
        return all(
            float(flat[part].min()) > -limit and float(flat[part].max()) < limit
            for part in _slices(self._size)
        )

    def add(self, array: np.ndarray, weight: int) -> None:
        """Add ``array * weight``, which must fit. Raises OverflowError for too many terms."""
        if self._terms == MOST_TERMS:
            raise OverflowError(f"more than {MOST_TERMS} terms")
        flat = array.reshape(-1)
        if self._terms == 0:
            self._sum = blocks.empty(self._size, np.int64)
            self._first = self._sum.view(array.dtype)[: self._size]
            self._first[...] = flat
        else:
            if self._terms == 1:
                self._spread()
            _share_out(_slices(self._size), lambda parts: self._add(flat, weight, parts))
        self._terms += 1
        self._weight += weight

    def divided(self, divisor: int, dtype: np.dtype | type = np.float64) -> np.ndarray:
        """The sum divided by ``divisor``, in ``dtype``."""
        if self._terms == 0:
            return np.zeros(self.shape, dtype)
        result = blocks.empty(self.shape, dtype)
        flat = result.reshape(-1)
        _share_out(_slices(self._size), lambda parts: self._divide(divisor, flat, parts))
        return result

    def _add(self, flat: np.ndarray, weight: int, parts: list[slice]) -> None:
        space = self._space()
        for part in parts:
            self._sum[part] += self._steps(part, flat[part], weight, space)

    def _divide(self, divisor: int, flat: np.ndarray, parts: list[slice]) -> None:
        space = self._space()
        for part in parts:
            if self._terms > 1:
                flat[part] = self._quotients(part, divisor, space)
            elif self._weight == divisor:
                flat[part] = self._first[part]
            else:
                flat[part] = self._first[part].astype(np.float64) * self._weight / divisor

    def _space(self) -> np.ndarray:
        """For what is computed of one block."""
        return np.empty(min(_BLOCK, self._size))

    def _spread(self) -> None:
        """Make a sum of the first term, from the end: integers take more room than it did."""
        parts = _slices(self._size)
        while parts:
            # A term lies behind its value: none of the later half is written over a value of it.
            middle = (len(parts) + 1) // 2 if len(parts) > 1 else 0
            _share_out(parts[middle:], self._spread_parts)
            del parts[middle:]
        self._first = np.zeros(0)

    def _spread_parts(self, parts: list[slice]) -> None:
        space = self._space()
        for part in parts:
            self._sum[part] = self._steps(part, self._first[part], self._weight, space)

    @abstractmethod
    def _steps(self, part: slice, values: np.ndarray, weight: int, space: np.ndarray) -> np.ndarray:
        """The block's terms, as integers; perhaps in ``space``."""

    @abstractmethod
    def _quotients(self, part: slice, divisor: int, space: np.ndarray) -> np.ndarray:
        """The block's sum, divided: float64; perhaps in ``space``."""


class ExactSum(_Sum):
    """A sum in two integers a value: 16 bytes. The rounding error of a term is at most 2**-60."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self._low = np.zeros(self._size, np.int64)

    def limit(self, weight: int) -> float:
        """Of the value: with its weight it is below :data:`LARGEST`."""
        return LARGEST / weight

    def _steps(self, part: slice, values: np.ndarray, weight: int, space: np.ndarray) -> np.ndarray:
        term = values.astype(np.float64) * weight
        high = np.rint(term * _HIGH)
        self._low[part] += np.rint((term - high / _HIGH) * _LOW).astype(np.int64)
        return high.astype(np.int64)

    def _quotients(self, part: slice, divisor: int, space: np.ndarray) -> np.ndarray:
        return (self._sum[part] / _HIGH + self._low[part] / _LOW) / divisor


class GridSum(_Sum):
    """A sum in one integer a value: 8 bytes, for arrays of at most float32's precision.

    What is summed are the changes from ``like``, the global state's array, so that where nothing
    changes the mean is ``like``. The grid depends on ``like`` alone, by its scale: its largest
    absolute value, or 1 if that is more, rounded up to a power of two. The rounding error of a term
    is at most scale * 2**-24, half of float32's spacing at the scale; that of a mean is this times
    the number of terms, divided by the sum of their weights. A value and the scale together, times
    the weight, stay below scale * 2**28: values reach 2**12 times the scale at the weight 2**15,
    the scale itself at 2**27.
    """

    def __init__(self, like: np.ndarray) -> None:
        super().__init__(like.shape)
        self._like = like.reshape(-1)
        largest = max(
            (float(np.abs(self._like[part]).max()) for part in _slices(self._size)), default=0
        )
        self._scale = 2.0 ** float(np.ceil(np.log2(max(largest, 1.0))))
        self._step = self._scale * _FINE

    def limit(self, weight: int) -> float:
        """Of the value: its difference from any value within the scale is below 2**51 steps."""
        return self._step * _MOST_STEPS / weight - self._scale

    def _steps(self, part: slice, values: np.ndarray, weight: int, space: np.ndarray) -> np.ndarray:
        term = space[: values.size]
        np.subtract(values, self._like[part], out=term, dtype=np.float64)
        term *= weight / self._step
        term += _SHIFT  # the low bits of the result are the term, rounded to an integer
        steps = term.view(np.int64)
        steps -= _SHIFT_BITS
        return steps

    def _quotients(self, part: slice, divisor: int, space: np.ndarray) -> np.ndarray:
        quotient = space[: part.stop - part.start]
        np.multiply(self._sum[part], self._step / divisor, out=quotient)
        if divisor == self._weight:
            quotient += self._like[part]
        else:
            quotient += self._like[part].astype(np.float64) * (self._weight / divisor)
        return quotient


def _slices(size: int) -> list[slice]:
    """Slices of a flat array that stay in the processor's cache."""
    return [slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]


def _share_out(parts: list[slice], work: Callable[[list[slice]], None]) -> None:
    """Call ``work`` with blocks of an array: in several threads where they are many.

    numpy lets go of the GIL within a block.
    """
    threads = min(os.cpu_count() or 1, _MOST_THREADS) if len(parts) >= _MANY else 1
    if threads == 1:
        work(parts)
        return
    share = -(-len(parts) // threads)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, (parts[at : at + share] for at in range(0, len(parts), share))))
