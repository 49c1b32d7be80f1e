"""Inline SVG, built from escaped text only.

A charting library would put megabytes of script into every report, or seconds of import before
it; the report's charts need lines, bars, axes and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

Point = tuple[float, float]


def tag(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """An element; ``class_`` and ``stroke_width`` become ``class`` and ``stroke-width``."""
    listed = Markup("").join(
        Markup(' {}="{}"').format(key.strip("_").replace("_", "-"), _attribute(value))
        for key, value in attributes.items()
        if value is not None
    )
    if not children:
        return Markup("<{}{}/>").format(name, listed)
    return Markup("<{0}{1}>{2}</{0}>").format(name, listed, Markup("").join(children))


def _attribute(value: object) -> object:
    return coordinate(value) if isinstance(value, float) else value


def coordinate(value: float) -> str:
    """A coordinate to a tenth of a unit, without a needless ``.0``."""
    return f"{value:.1f}".removesuffix(".0")


def line(points: Iterable[Point]) -> str:
    """Path data through ``points``."""
    return "M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)


def nice_step(span: float, wanted: int) -> float:
    """1, 2 or 5 times a power of ten, so that about ``wanted`` steps fill ``span``."""
    power = 10.0 ** math.floor(math.log10(span / wanted))
    return next(m * power for m in (1, 2, 5, 10) if m * power * (wanted + 0.5) >= span)


class Scale:
    """Values of an axis to coordinates."""

    def __init__(
        self, low: float, high: float, start: float, end: float, step: float | None = None
    ) -> None:
        """``low`` stands at ``start`` and ``high`` at ``end``; ``step`` is from tick to tick."""
        self.low, self.high = low, high
        self._start, self._end = start, end
        self._step = step or nice_step(high - low, 5)

    @classmethod
    def nice(
        cls,
        values: Sequence[float],
        start: float,
        end: float,
        bounds: tuple[float, float] = (-math.inf, math.inf),
    ) -> Scale:
        """A scale whose ends are ticks just around ``values``, inside ``bounds``."""
        low, high = min(values), max(values)
        if high - low < 1e-9 * max(1.0, abs(high)):
            pad = 0.05 * abs(high) or 0.05
            low, high = low - pad, high + pad
        step = nice_step(high - low, 5)
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
        return cls(max(low, bounds[0]), min(high, bounds[1]), start, end, step)

    def __call__(self, value: float) -> float:
        """The coordinate of ``value``."""
        share = (value - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self, whole: bool = False) -> list[tuple[float, str]]:
        """Round values inside the scale, with their text; with ``whole``, none between integers."""
        step = max(1.0, self._step) if whole else self._step
        first = math.ceil(self.low / step - 1e-6)
        last = math.floor(self.high / step + 1e-6)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        plain = max(abs(self.low), abs(self.high)) < 1e6 and decimals <= 5
        return [
            (i * step, f"{i * step:,.{decimals}f}" if plain else f"{i * step:.2g}")
            for i in range(first, last + 1)
        ]
