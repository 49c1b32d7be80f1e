"""What stands in each section of the report: plain values, for page.html to lay out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from fl_core.errors import RunFolderError
from fl_core.metrics import Scores, Value
from fl_core.report import charts, text
from fl_core.report.figures import Figures, Series, silo_names
from fl_core.runs import Run, deliveries
from fl_core.tracking.delivery import Progress
from fl_core.tracking.local import (
    BYTES_DOWN,
    BYTES_UP,
    FIT_SECONDS,
    PERSONAL_AUC,
    PERSONAL_LOSS,
    ROUND_SECONDS,
    TEST_ACCURACY,
    TEST_AUC,
    TEST_LOSS,
    TRAINING_LOSS,
    VALIDATION_AUC,
)

SCORES = (TRAINING_LOSS, VALIDATION_AUC, TEST_AUC, TEST_ACCURACY, TEST_LOSS)
PARTS = ("train", "validation", "test")
MAX_ROUND_ROWS = 200
MAX_PROBLEMS = 5


@dataclass(frozen=True)
class Cell:
    """A figure: as it is shown, and exactly."""

    text: str
    value: str | None = None
    """repr of the number; None where there is none."""
    reason: str | None = None
    name: str | None = None
    silo: str | None = None
    round: int | None = None


def head(run: Run, figures: Figures) -> dict[str, Any]:
    """Name, status, what was run, when, and what went wrong."""
    manifest = run.manifest
    spec = manifest["spec"]
    seconds = manifest.get("seconds")
    done = figures.last(ROUND_SECONDS)
    wanted = spec.get("rounds")
    rounds = f"{done[0] if done else 0} of {wanted}"
    facts = [
        ("model", _chosen(spec, "model")),
        ("strategy", _chosen(spec, "strategy")),
        ("dataset", _chosen(spec, "dataset")),
        ("silos", str(len(silo_names(manifest)))),
        ("rounds", str(wanted) if done and done[0] == wanted else rounds),
        ("seed", str(spec.get("seed", text.ABSENT))),
        ("took", text.seconds(seconds) if isinstance(seconds, (int, float)) else text.ABSENT),
    ]
    return {
        "id": manifest["id"],
        "name": spec.get("name") or manifest["id"],
        "status": manifest["status"],
        "started": manifest.get("started"),
        "started_text": text.moment(manifest["started"]) if manifest.get("started") else None,
        "facts": facts,
        "error": manifest.get("error"),
        "exit_code": manifest.get("exit_code"),
    }


def headline(run: Run, figures: Figures) -> dict[str, Any]:
    """The final pooled figures; without any when none was ever computed."""
    cells = [
        _metric(figures, name) for name in (TEST_AUC, TEST_ACCURACY, TEST_LOSS, VALIDATION_AUC)
    ]
    known = [cell for cell in cells if cell.round is not None]
    if not known:
        return {"cells": []}
    rows = run.manifest.get("rows", {})
    counts = [f"{_rows(rows, part) or 0:,} {part}" for part in ("test", "validation")]
    return {
        "cells": cells,
        "round": known[0].round,
        "silos": text.count(len(figures.silos), "silo"),
        "rows": " and ".join(counts) + " rows" if rows else "rows",
    }


def curves(figures: Figures) -> dict[str, Any]:
    """Charts of metrics over rounds, with one legend for all."""
    found = []
    for name, better in (
        (TRAINING_LOSS, "lower"),
        (VALIDATION_AUC, "higher"),
        (TEST_AUC, "higher"),
        (TEST_LOSS, "lower"),
    ):
        silos = {silo: figures.series(name, silo) for silo in figures.silos}
        chart = charts.curves(name, f"{name} over rounds", figures.series(name), silos)
        absent = [silo for silo, values in silos.items() if _undefined(values)]
        note = ", ".join(absent) if len(absent) <= charts.MAX_LINES else f"{len(absent)} silos"
        found.append({"name": name, "better": better, "chart": chart, "undefined": note})
    legend = [(charts.swatch("pooled"), "pooled")]
    if len(figures.silos) > charts.MAX_LINES:
        silos_text = text.count(len(figures.silos), "silo")
        legend.append((charts.swatch("range"), f"range of {silos_text}"))
        legend.append((charts.swatch("middle"), "their middle half"))
    else:
        legend += [(charts.swatch(f"silo s{i}"), silo) for i, silo in enumerate(figures.silos)]
    return {"charts": found if any(c["chart"] for c in found) else [], "legend": legend}


def silo_table(run: Run, figures: Figures) -> dict[str, Any]:
    """A row a silo, and the pooled row."""
    known = run.manifest.get("rows", {})
    personal = bool(figures.series(PERSONAL_AUC))
    names = (*SCORES, PERSONAL_AUC, PERSONAL_LOSS) if personal else SCORES
    rows = []
    for silo in figures.silos:
        parts = [_count(known.get(silo, {}).get(part), part, silo) for part in PARTS]
        work = [
            _total(figures.total(FIT_SECONDS, silo), text.seconds, FIT_SECONDS, silo),
            _total(figures.total(BYTES_UP, silo), text.size, BYTES_UP, silo),
            _total(figures.total(BYTES_DOWN, silo), text.size, BYTES_DOWN, silo),
        ]
        rows.append((silo, [*parts, *(_metric(figures, name, silo) for name in names), *work]))
    totals = [_count(_rows(known, part), part, None) for part in PARTS]
    pooled = [*totals, *(_metric(figures, name) for name in names)]
    for name, shown in (
        (FIT_SECONDS, text.seconds),
        (BYTES_UP, text.size),
        (BYTES_DOWN, text.size),
    ):
        sums = [s for silo in figures.silos if (s := figures.total(name, silo)) is not None]
        pooled.append(_total(math.fsum(sums) if sums else None, shown, name, None))
    found = any(cell.text != text.ABSENT for _, cells in rows for cell in cells)
    return {"rows": rows if found else [], "pooled": pooled, "names": names}


def tracking(run: Run) -> dict[str, Any]:
    """What trackers have been told: a row a part and tracker, and each problem once."""
    try:
        found = deliveries(run.folder)
    except RunFolderError as error:  # the report is of the run, whatever has become of that file
        return {"rows": [], "problems": [error.message]}
    rows = [
        {
            "part": part.name,
            "tracker": state.tracker,
            "state": "complete" if state.progress is Progress.DELIVERED else state.progress.value,
            "points": f"{state.delivered:,}",
            "waiting": f"{state.waiting:,}",
            "lag": text.ABSENT if state.lag is None else text.seconds(state.lag),
        }
        for part, state in found
    ]
    problems = [
        f"{state.tracker}: {state.problem.message}; {state.problem.remedy}"
        for _, state in found
        if state.problem is not None
    ]
    return {"rows": rows, "problems": list(dict.fromkeys(problems))[:MAX_PROBLEMS]}


def round_table(figures: Figures) -> dict[str, Any]:
    """The pooled figures round by round; of very many rounds, every so many and the last."""
    names = (*SCORES, ROUND_SECONDS)
    rounds = sorted({round for name in names for round in figures.series(name)})
    step = math.ceil(len(rounds) / MAX_ROUND_ROWS)
    kept = sorted({*rounds[::step], rounds[-1]}) if rounds else []
    rows = []
    for round in kept:
        cells = []
        for name in names:
            shown = text.seconds if name == ROUND_SECONDS else text.number
            cells.append(_cell(figures.series(name).get(round), shown, name, None, round))
        rows.append((round, cells))
    return {"names": names, "rows": rows, "step": step}


def times(run: Run, figures: Figures) -> dict[str, Any]:
    """Where the time of a round went: a chart, and medians."""
    found = figures.round_times()
    if not found:
        return {"chart": None}
    slowest = Counter(time.silo for time in found if time.silo is not None).most_common(1)
    total = sum(time.total for time in found)
    rows = []
    for part, name in charts.PARTS.items():
        seconds = [getattr(time, part) for time in found]
        share = sum(seconds) / total if total else 0.0
        cell = Cell(text.seconds(median(seconds)), repr(median(seconds)))
        rows.append((charts.swatch(part), name, cell, f"{share:.0%}"))
    whole = median(time.total for time in found)
    overhead = median(max(0.0, time.total - time.fit) for time in found)
    run_seconds = run.manifest.get("seconds")
    return {
        "chart": charts.round_times(found, "Time of each round"),
        "rows": rows,
        "whole": Cell(text.seconds(whole), repr(whole)),
        "overhead": text.seconds(overhead),
        "count": len(found),
        "mean_of": math.ceil(len(found) / charts.MAX_BARS),
        "slowest": slowest[0] if slowest and len(figures.silos) > 1 else None,
        "sum": text.seconds(total),
        "run": text.seconds(run_seconds) if isinstance(run_seconds, (int, float)) else None,
    }


def final_model(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """ROC and calibration of the final model on all silos' test rows."""
    pooled = Scores.pooled(scores[silo] for silo in sorted(scores))
    return {
        "roc": charts.roc_curve(pooled, "ROC of the final model, pooled test rows"),
        "calibration": charts.calibration_curve(pooled, "Calibration of the final model"),
        "undefined": pooled.auc().reason,
        "count": pooled.count,
        "positive": int(pooled.positive.sum()),
        "negative": int(pooled.negative.sum()),
        "silos": text.count(len(scores), "silo"),
    }


def manifest(run: Run) -> dict[str, Any]:
    """The manifest as tables of names and values, and raw."""
    content = run.manifest
    plugins = content.get("plugins", [])
    versions = [("python", content.get("python")), ("platform", content.get("platform"))]
    versions += [
        (f"{plugin.get('distribution')}: {plugin.get('name')}", plugin.get("version"))
        for plugin in plugins
    ]
    versions += list(content.get("libraries", {}).items())
    timing = ("id", "status", "started", "finished", "seconds", "exit_code")
    schema = [
        ("schema SHA-256", content.get("schema_sha256")),
        ("spec SHA-256", content.get("spec_sha256")),
        ("features", content.get("features", [])),
    ]
    groups = [
        ("Spec", flat(content["spec"])),
        ("Run", [(key, content.get(key)) for key in timing]),
        ("Seeds", list(content.get("seeds", {}).items())),
        ("Schema", schema),
        ("Versions", versions),
        ("Certificate fingerprints, SHA-256", list(content.get("certificates_sha256", {}).items())),
        ("Files, SHA-256", list(content.get("files", {}).items())),
    ]
    return {
        "groups": [(name, [(k, plain(v)) for k, v in rows]) for name, rows in groups if rows],
        "raw": json.dumps(content, indent=2, ensure_ascii=False),
    }


def _chosen(spec: Mapping[str, Any], kind: str) -> str:
    return str(spec.get(kind, {}).get("name", text.ABSENT))


def _metric(figures: Figures, name: str, silo: str | None = None) -> Cell:
    last = figures.of_model(name, silo)
    if last is None:
        return Cell(text.ABSENT, name=name, silo=silo)
    return _cell(last[1], text.number, name, silo, last[0])


def _cell(
    value: Value | None,
    shown: Callable[[float], str],
    name: str,
    silo: str | None,
    round: int,
) -> Cell:
    if value is None:
        return Cell(text.ABSENT, name=name, silo=silo)
    if value.number is None:
        return Cell("undefined", None, value.reason, name, silo, round)
    return Cell(shown(value.number), repr(value.number), None, name, silo, round)


def _total(value: float | None, shown: Callable[[float], str], name: str, silo: str | None) -> Cell:
    if value is None:
        return Cell(text.ABSENT, name=name, silo=silo)
    return Cell(shown(value), repr(value), None, name, silo)


def _rows(rows: Mapping[str, Mapping[str, int]], part: str) -> int | None:
    """All silos' rows of a part; None where there is no count."""
    counts = [silo[part] for silo in rows.values() if part in silo]
    return sum(counts) if counts else None


def _undefined(values: Series) -> bool:
    """Whether a figure was logged, and never as a number."""
    return bool(values) and all(value.number is None for value in values.values())


def _count(value: Any, part: str, silo: str | None) -> Cell:
    if not isinstance(value, int):
        return Cell(text.ABSENT, name=part, silo=silo)
    return Cell(f"{value:,}", repr(value), None, part, silo)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested fields with dotted names, empty ones left out; silos without a path in one row."""
    result: list[tuple[str, Any]] = []
    for key, value in values.items():
        if value in ({}, []):
            continue
        if isinstance(value, dict):
            result += flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and all(isinstance(v, dict) for v in value):
            if all(set(item) == {"name", "data"} and item["data"] is None for item in value):
                result.append((prefix + key, [item["name"] for item in value]))
                continue
            for i, item in enumerate(value):
                if set(item) == {"name", "data"}:
                    result.append((f"{prefix}{key}.{item['name']}", item["data"]))
                else:
                    result += flat(item, f"{prefix}{key}.{i}.")
        else:
            result.append((prefix + key, value))
    return result


def plain(value: Any) -> str:
    """A field's value as text."""
    if value is None:
        return text.ABSENT
    if isinstance(value, list) and value and not any(isinstance(v, (dict, list)) for v in value):
        return ", ".join(str(v) for v in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
