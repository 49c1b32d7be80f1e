"""Numbers, times and sizes as a reader wants them. The exact values stand beside them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

ABSENT = "\N{EN DASH}"


def number(value: float) -> str:
    """A metric: three decimals, or three digits where it is tiny or huge."""
    if value == 0 or 0.001 <= abs(value) < 10_000:
        return f"{value:.3f}"
    return f"{value:.2e}"


def seconds(value: float) -> str:
    """A duration: ``4.2 ms``, ``42 ms``, ``5.19 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if value < 0.9995:
        return f"{value * 1e3:.{0 if value >= 0.00995 else 1 if value >= 0.000995 else 2}f} ms"
    if value < 99.95:
        return f"{value:.{2 if value < 9.995 else 1}f} s"
    if value < 3599.5:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest:02d} s"
    if value < 1e9:
        hours, rest = divmod(round(value / 60), 60)
        return f"{hours:,} h {rest:02d} min"
    return f"{value:.2e} s"


def size(value: float) -> str:
    """A number of bytes, in powers of 1000."""
    if value < 1000:
        return f"{value:.0f} B"
    power = min(int(math.log10(value) / 3), 5)
    if round(value / 1000**power, 1) >= 1000 and power < 5:
        power += 1
    return f"{value / 1000**power:,.1f} {' kMGTP'[power]}B"


def count(value: int, noun: str) -> str:
    """``1 silo``, ``4 silos``."""
    return f"{value:,} {noun}" + ("" if value == 1 else "s")


def moment(stamp: object) -> str:
    """A manifest's time, for people; what is no such time comes back as it is."""
    try:
        when = datetime.strptime(str(stamp), "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return str(stamp)
    zone = "UTC" if when.utcoffset() == timedelta(0) else f"UTC{when:%z}"
    return f"{when.day} {when:%b %Y, %H:%M:%S} {zone}"
