"""The report's charts: curves over rounds, a round's time, ROC and calibration.

Colours, dashes and the size of text come from page.css by class, so that they follow the
reader's colour scheme and the width of the screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
from markupsafe import Markup

from fl_core.metrics import BINS, Scores, Value, calibration, roc
from fl_core.report import text
from fl_core.report.figures import RoundTime, Series
from fl_core.report.svg import Point, Scale, coordinate, line, tag

WIDTH = 520
LEFT, RIGHT, TOP, BOTTOM = 60, 72, 14, 34
MAX_LINES = 8
"""With more silos than this, their range is drawn in place of a line each."""
MAX_POINTS = 240
"""A line of more rounds keeps the least and the greatest value of every few."""
MAX_BARS = 50
LABEL_WIDTH, LABEL_HEIGHT = 24.0, 18.0
"""Room for a letter at the end of a curve."""


def curves(name: str, title: str, pooled: Series, silos: Mapping[str, Series]) -> Markup | None:
    """A metric over rounds; None when it was never logged as a number."""
    height = 250
    everything = {"pooled": pooled, **silos}
    scales = _scales(name, list(everything.values()), height)
    if scales is None:
        return None
    x, y = scales
    parts = [_axes(x, y, height, "round", whole=True)]
    final = next((p for p in reversed(thinned(pooled)) if p[1] is not None), None)
    if name.endswith("AUC") and y.low < 0.5 < y.high:
        parts.append(_reference((x.low, 0.5), (x.high, 0.5), x, y))
        if final is None or final[1] is None or abs(y(final[1]) - y(0.5)) > 20:
            parts.append(
                tag("text", "chance", class_="note", x=x(x.high) + 8, y=y(0.5), dy="0.35em")
            )
    if len(silos) > MAX_LINES:
        parts.append(_range(silos, x, y))
    else:
        for i, (silo, series) in enumerate(silos.items()):
            parts.append(_curve(thinned(series), x, y, f"silo s{i}", silo))
    parts.append(_curve(thinned(pooled), x, y, "pooled", "pooled"))
    rounds = {round for series in everything.values() for round in series}
    dense = "dense" if len(rounds) > MAX_POINTS * len(everything) else None
    parts = [tag("g", *parts, class_=dense)]
    if final is not None and final[1] is not None:
        end = (x(final[0]), y(final[1]))
        parts.append(tag("circle", class_="pooled dot", cx=end[0], cy=end[1], r=3.5))
        label = text.number(final[1])
        parts.append(tag("text", label, class_="final", x=end[0] + 8, y=end[1], dy="0.35em"))
    return _figure(height, title, _describe(name, pooled, len(silos)), parts)


def compared(
    name: str, title: str, runs: Mapping[str, tuple[str, Series]], most_points: int = MAX_POINTS
) -> Markup | None:
    """A metric over rounds in several runs; None when none of them logged it as a number.

    ``runs``: by the run's letter, its name and values; a run without any keeps its colour.
    """
    height = 310
    scales = _scales(name, [series for _, series in runs.values()], height)
    if scales is None:
        return None
    x, y = scales
    parts = [_axes(x, y, height, "round", whole=True)]
    if name.endswith("AUC") and y.low < 0.5 < y.high:
        parts.append(_reference((x.low, 0.5), (x.high, 0.5), x, y))
        parts.append(tag("text", "chance", class_="note halo", x=LEFT + 6, y=y(0.5) - 6))
    ends: dict[int, tuple[str, Point]] = {}
    described = []
    for i, (letter, (run, series)) in enumerate(runs.items()):
        points = thinned(series, most_points)
        known = [(round, number) for round, number in points if number is not None]
        if not known:
            continue
        round, number = known[-1]
        parts.append(_curve(points, x, y, f"run s{i}", f"{letter}: {run}"))
        ends[i] = letter, (x(round), y(number))
        described.append(f"{letter}: {text.number(number)} in round {round}")
    dense = "dense" if any(len(series) > MAX_POINTS for _, series in runs.values()) else None
    parts = [tag("g", *parts, class_=dense), *_end_labels(ends, y(y.high), y(y.low))]
    return _figure(height, title, f"{name} by round. {'; '.join(described)}.", parts)


def _end_labels(ends: Mapping[int, tuple[str, Point]], top: float, bottom: float) -> list[Markup]:
    """A dot and a letter at the end of each curve; letters that would overlap are moved apart."""
    columns: list[list[int]] = []
    for i in sorted(ends, key=lambda i: ends[i][1][0]):
        if columns and ends[i][1][0] - ends[columns[-1][0]][1][0] < LABEL_WIDTH:
            columns[-1].append(i)
        else:
            columns.append([i])
    parts = []
    for column in columns:
        column.sort(key=lambda i: ends[i][1][1])
        gap = min(LABEL_HEIGHT, (bottom - top) / max(1, len(column) - 1))
        places = _apart([ends[i][1][1] for i in column], gap, top, bottom)
        right = max(ends[i][1][0] for i in column) + 18
        for i, place in zip(column, places, strict=True):
            letter, (end_x, end_y) = ends[i]
            leader = line([(end_x, end_y), (right - 3, place)])
            parts.append(tag("path", class_=f"leader s{i}", d=leader))
            parts.append(tag("circle", class_=f"run s{i} dot", cx=end_x, cy=end_y, r=3))
            text_ = {"class_": f"letter halo s{i}", "x": right, "y": place, "dy": "0.35em"}
            parts.append(tag("text", letter, **text_))
    return parts


def _apart(places: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Sorted places, moved as little as makes neighbours ``gap`` apart, from ``top`` on."""
    groups: list[tuple[float, int]] = []  # the first one's place, and how many touch it
    for i, place in enumerate(places):
        first, count = place - i * gap, 1
        while groups and groups[-1][0] > first:
            before, touching = groups.pop()
            first = (before * touching + first * count) / (touching + count)
            count += touching
        groups.append((first, count))
    highest = bottom - (len(places) - 1) * gap
    firsts = [min(max(first, top), highest) for first, count in groups for _ in range(count)]
    return [first + i * gap for i, first in enumerate(firsts)]


def round_times(times: Sequence[RoundTime], title: str) -> Markup | None:
    """Stacked bars of where each round's time went; None without a finished round."""
    if not times:
        return None
    height = 250
    size = math.ceil(len(times) / MAX_BARS)
    groups = [times[i : i + size] for i in range(0, len(times), size)]
    stacks = [[_mean(group, part) for part in PARTS] for group in groups]
    top = max(max(sum(stack) for stack in stacks), 1e-6)
    unit, factor = ("ms", 1e3) if top < 1 else ("s", 1.0)
    first, last = times[0].round, times[-1].round
    x = Scale(first - 0.5, last + 0.5, LEFT, WIDTH - RIGHT)
    y = Scale.nice([0.0, top * factor], height - BOTTOM, TOP)
    parts = [_axes(x, y, height, "round", whole=True)]
    for group, stack in zip(groups, stacks, strict=True):
        begin, end = x(group[0].round - 0.5), x(group[-1].round + 0.5)
        gap = min(2.0, 0.25 * (end - begin))
        bars, floor = [], 0.0
        for part, value in zip(PARTS, stack, strict=True):
            low, high = y(floor * factor), y((floor + value) * factor)
            area = {"x": begin + gap / 2, "y": high, "width": end - begin - gap}
            bars.append(tag("rect", class_=part, **area, height=low - high))
            floor += value
        parts.append(tag("g", tag("title", _bar_title(group, stack)), *bars))
    parts.append(tag("text", unit, class_="note", x=LEFT + 5, y=TOP + 4))
    text_ = f"Seconds of rounds {first} to {last}, as bars of {', '.join(PARTS.values())}."
    return _figure(height, title, text_, parts)


PARTS = {
    "fit": "slowest silo's fit",
    "score": "its scoring",
    "aggregate": "aggregation",
    "rest": "transport and waiting",
}
"""A RoundTime's parts, in the order in which they are stacked."""


def roc_curve(scores: Scores, title: str) -> Markup | None:
    """The ROC curve; None where one class is missing."""
    auc = scores.auc().number
    if auc is None:
        return None
    height = 430
    x, y = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, height - 54, TOP)
    rates = zip(*(rate.tolist() for rate in roc(scores)), strict=True)
    points = [(x(fpr), y(tpr)) for (fpr, tpr), _ in groupby(rates)]
    area = line([*points, (x(1), y(0)), (x(0), y(0))]) + "Z"
    parts = [
        _axes(x, y, height, "", whole=False),
        tag("path", class_="under", d=area),
        _reference((0, 0), (1, 1), x, y),
        tag("path", class_="pooled", d=line(points)),
        tag("text", f"AUC {text.number(auc)}", class_="final", x=x(0.6), y=y(0.28)),
        _axis_titles(height, "false positive rate", "true positive rate"),
    ]
    return _figure(height, title, f"Area under the curve {text.number(auc)}.", parts)


def calibration_curve(scores: Scores, title: str) -> Markup | None:
    """Observed share of positives against predicted risk, and rows; None without rows."""
    groups = calibration(scores)
    if not groups:
        return None
    height, strip = 430, 56
    floor = height - 54
    x, y = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, floor - strip - 22, TOP)
    bars = Scale(0, max(rows for _, _, rows in groups), floor, floor - strip + 16)
    edges = [int(part[0]) / BINS for part in np.array_split(np.arange(BINS), 10)] + [1.0]
    parts = [_axes(x, y, height, "", whole=False, labels_at=floor)]
    parts.append(_reference((0, 0), (1, 1), x, y))
    marks = []
    for predicted, observed, rows in groups:
        group = max(i for i in range(10) if edges[i] <= predicted)
        left, right = x(edges[group]) + 1, x(edges[group + 1]) - 1
        top = bars(rows)
        parts.append(
            tag("rect", class_="rows", x=left, y=top, width=right - left, height=floor - top)
        )
        middle = (left + right) / 2
        parts.append(tag("text", f"{rows:,}", class_="rows", x=middle, y=top - 4))
        low, high = _wilson(observed, rows)
        place = x(predicted)
        whisker = line([(place, y(low)), (place, y(high))])
        described = f"predicted {predicted:.3f}, observed {observed:.3f}, {rows} rows"
        marks.append(tag("path", class_="whisker", d=whisker))
        dot = tag("title", described)
        marks.append(tag("circle", dot, class_="pooled dot", cx=place, cy=y(observed), r=4.5))
    path = line((x(predicted), y(observed)) for predicted, observed, _ in groups)
    parts.append(tag("path", class_="pooled thin", d=path))
    parts += marks
    parts.append(_axis_titles(height, "predicted risk", "share of positives"))
    return _figure(height, title, f"{len(groups)} groups of {scores.count} rows.", parts)


def swatch(kind: str) -> Markup:
    """A legend's sample of a line (``pooled``, ``silo s0`` ...) or of an area."""
    if kind in PARTS or kind in ("range", "middle"):
        sample = tag("rect", class_=kind, x=0, y=1, width=24, height=10, rx=1.5)
    else:
        sample = tag("path", class_=kind, d="M0 6H24")
    return tag("svg", sample, class_="swatch", viewBox="0 0 24 12", aria_hidden="true")


def _figure(height: int, title: str, description: str, parts: Sequence[Markup]) -> Markup:
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *parts,
        class_="chart",
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_label=f"{title}. {description}",
    )


def _axes(
    x: Scale, y: Scale, height: int, name: str, *, whole: bool, labels_at: float | None = None
) -> Markup:
    """Grid lines, tick texts and the name of the horizontal axis."""
    left, right = x(x.low), x(x.high)
    base = y(y.low) if labels_at is None else labels_at
    parts = []
    for value, label in y.ticks():
        kind = "axis" if value == y.low else "grid"
        at = y(value)
        parts.append(tag("path", class_=kind, d=f"M{left:.0f} {coordinate(at)}H{right:.0f}"))
        parts.append(tag("text", label, class_="y", x=left - 8, y=at, dy="0.35em"))
    ticks = x.ticks(whole=whole)
    if whole and len(ticks) > 1 and ticks[0][0] - x.low > 0.5 * (ticks[1][0] - ticks[0][0]):
        first = math.ceil(x.low)
        ticks.insert(0, (first, f"{first:,}"))
    for value, label in ticks:
        if x.low <= value <= x.high:
            parts.append(tag("text", label, class_="x", x=x(value), y=base, dy="1.5em"))
    if name:
        gap = max(22.0, 10 + 4.5 * len(ticks[-1][1])) if ticks else 22.0
        parts.append(tag("text", name, class_="note", x=right + gap, y=base, dy="1.5em"))
    return tag("g", *parts, class_="axes")


def _scales(name: str, everything: Sequence[Series], height: int) -> tuple[Scale, Scale] | None:
    """Axes for a metric over rounds; None when it was never logged as a number."""
    values = [v.number for s in everything for v in s.values() if v.number is not None]
    if not values:
        return None
    rounds = [round for series in everything for round in series]
    low, high = min(rounds), max(rounds)
    x = Scale(low - 0.5 * (low == high), high + 0.5 * (low == high), LEFT, WIDTH - RIGHT)
    bounds = (0.0, 1.0) if name.endswith("AUC") else (-math.inf, math.inf)
    return x, Scale.nice(values, height - BOTTOM, TOP, bounds)


def _axis_titles(height: int, horizontal: str, vertical: str) -> Markup:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return tag(
        "g",
        tag("text", horizontal, class_="x", x=middle, y=height - 4),
        tag(
            "text", vertical, class_="x", transform=f"translate(15 {height // 2 - 30}) rotate(-90)"
        ),
    )


def _reference(start: Point, end: Point, x: Scale, y: Scale) -> Markup:
    points = [(x(a), y(b)) for a, b in (start, end)]
    return tag("path", class_="reference", d=line(points))


def thinned(series: Series, most: int = MAX_POINTS) -> list[tuple[int, float | None]]:
    """A series with a gap (None) where rounds are missing; of a long one, what can be seen.

    Of every few rounds of a long series the least, the greatest and the last value are kept.
    """
    points = [(round, value.number) for round, value in series.items()]
    if len(points) > most:
        size = math.ceil(2 * len(points) / most)
        return [p for i in range(0, len(points), size) for p in _extremes(points[i : i + size])]
    result: list[tuple[int, float | None]] = []
    for round, number in points:
        if result and round > result[-1][0] + 1:
            result.append((round - 1, None))
        result.append((round, number))
    return result


def _extremes(points: list[tuple[int, float | None]]) -> list[tuple[int, float | None]]:
    known = [(round, number) for round, number in points if number is not None]
    if not known:
        return points[:1]
    ends = {min(known, key=lambda p: p[1]), max(known, key=lambda p: p[1]), known[-1]}
    return [*sorted(ends)]


def _curve(
    thin: Sequence[tuple[int, float | None]], x: Scale, y: Scale, kind: str, name: str
) -> Markup:
    """A line with gaps; a value between two gaps is a dot."""
    data, dots = "", []
    for known, run in groupby(thin, key=lambda point: point[1] is not None):
        points = [(x(round), y(number)) for round, number in run if number is not None]
        if known and len(points) > 1:
            data += line(points)
        elif known:
            dots.append(
                tag("circle", class_=f"{kind} dot", cx=points[0][0], cy=points[0][1], r=2.5)
            )
    path = [tag("path", class_=kind, d=data)] if data else []
    return tag("g", tag("title", name), *path, *dots)


def _range(silos: Mapping[str, Series], x: Scale, y: Scale) -> Markup:
    """The range of the silos' values, and of their middle half, by round."""
    rounds = sorted({round for series in silos.values() for round in series})
    size = math.ceil(len(rounds) / (MAX_POINTS / 2))
    missing = Value(None)
    rows: list[tuple[float, np.ndarray] | None] = []
    for i in range(0, len(rounds), size):
        group = rounds[i : i + size]
        values = [series.get(r, missing).number for series in silos.values() for r in group]
        known = [value for value in values if value is not None]
        place = x((group[0] + group[-1]) / 2 if i + size < len(rounds) and i else group[-(i > 0)])
        rows.append((place, np.quantile(known, (0, 0.25, 0.75, 1))) if known else None)
    parts = [tag("title", f"range of {len(silos)} silos, and of their middle half")]
    for kind, low, high in (("range", 0, 3), ("middle", 1, 2)):
        data = ""
        for known, run in groupby(rows, key=lambda row: row is not None):
            band = [row for row in run if row is not None]
            if known:
                if len(band) == 1:
                    place, at = band[0]
                    band = [(place - 2, at), (place + 2, at)]
                upper = [(place, y(float(at[high]))) for place, at in band]
                lower = [(place, y(float(at[low]))) for place, at in reversed(band)]
                data += line([*upper, *lower]) + "Z"
        parts.append(tag("path", class_=kind, d=data))
    return tag("g", *parts)


def _describe(name: str, pooled: Series, silos: int) -> str:
    known = [(round, v.number) for round, v in pooled.items() if v.number is not None]
    by = f"by round, pooled and for {text.count(silos, 'silo')}"
    if not known:
        return f"{name} {by}. The pooled value is undefined."
    (first, start), (last, end) = known[0], known[-1]
    return (
        f"{name} {by}. Pooled: {text.number(start)} in round {first}, "
        f"{text.number(end)} in round {last}."
    )


def _mean(group: Sequence[RoundTime], part: str) -> float:
    return sum(getattr(time, part) for time in group) / len(group)


def _bar_title(group: Sequence[RoundTime], stack: Sequence[float]) -> str:
    rounds = f"round {group[0].round}"
    if len(group) > 1:
        rounds = f"mean of rounds {group[0].round} to {group[-1].round}"
    parts = (f"{name} {text.seconds(s)}" for name, s in zip(PARTS.values(), stack, strict=True))
    return f"{rounds}: {', '.join(parts)}"


def _wilson(share: float, rows: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share: 95 % for z = 1.96."""
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    half /= 1 + z * z / rows
    return max(0.0, centre - half), min(1.0, centre + half)
