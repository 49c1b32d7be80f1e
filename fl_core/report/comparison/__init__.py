"""Several runs beside each other: what was different, and what came of it.

Where the runs come from does not matter here: :func:`of` reads a run folder, and a service that
keeps runs can be read into the same :class:`Compared`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_core.metrics import Value
from fl_core.report import text
from fl_core.report.figures import Figures, Series
from fl_core.report.sections import flat, plain
from fl_core.runs import Run
from fl_core.tracking.local import (
    FIGURES,
    TEST_ACCURACY,
    TEST_AUC,
    TEST_LOSS,
    TRAINING_LOSS,
    VALIDATION_AUC,
)

MOST_RUNS = 12
"""More lines than that in one chart cannot be told apart."""
HEADLINE = TEST_AUC
"""The figure by which silos are looked over."""
Parameter = str | float | int | bool | None

_ORDER = (TEST_AUC, TEST_ACCURACY, TEST_LOSS, VALIDATION_AUC, TRAINING_LOSS)
_ROWS = ("dataset", "silos", "split")
_SIZES = {"Train Data Size", "Validation Data Size", "Test Data Size"}


@dataclass(frozen=True)
class Compared:
    """One run among those that are compared."""

    name: str
    """Its id, or what else it is known by; another one for each run."""
    status: str
    """Such as ``completed``, ``failed``, ``running``."""
    parameters: Mapping[str, Parameter]
    """What was set, and with what it was made, by name; None is the same as not set."""
    figures: Mapping[tuple[str | None, str], Series]
    """By silo (None: pooled) and metric name, the values by round, in the rounds' order."""


@dataclass(frozen=True)
class ParameterRow:
    """A parameter's value in each run; None where it is not set."""

    name: str
    values: tuple[Parameter, ...]


@dataclass(frozen=True)
class Figure:
    """What became of one metric in one run."""

    round: int
    """The last round in which it was logged."""
    last: Value
    best_round: int | None
    """The first round of the best value; None where no value is a number, or none is better."""
    best: float | None
    last_leads: bool
    """Whether no other run has a better last value, and some other run has one."""
    best_leads: bool


@dataclass(frozen=True)
class FigureRow:
    """One metric of one silo, or the pooled one, in each run; None where it was never logged."""

    silo: str | None
    name: str
    better: str | None
    """``higher`` or ``lower``; None where neither is."""
    figures: tuple[Figure | None, ...]


def of(run: Run) -> Compared:
    """A run folder's part of a comparison. Raises RunFolderError when it cannot be read."""
    figures = Figures.of(run)
    series = {
        (silo, name): values
        for silo in (None, *figures.silos)
        for name in FIGURES
        if (values := figures.series(name, silo))
    }
    return Compared(run.manifest["id"], run.manifest["status"], _parameters(run.manifest), series)


def differing(compared: Sequence[Compared]) -> list[ParameterRow]:
    """The parameters that are not the same in all runs."""
    return [row for row in _rows(compared) if len({_key(value) for value in row.values}) > 1]


def equal(compared: Sequence[Compared]) -> list[ParameterRow]:
    """The parameters that are the same in all runs."""
    return [row for row in _rows(compared) if len({_key(value) for value in row.values}) == 1]


def final(compared: Sequence[Compared]) -> list[FigureRow]:
    """Last and best value of every metric in every run: the pooled ones, then silo by silo."""
    return [_figure_row(compared, None, name) for name in metrics(compared, None)] + [
        _figure_row(compared, silo, name)
        for silo in silos(compared)
        for name in metrics(compared, silo)
    ]


def silos(compared: Sequence[Compared]) -> list[str]:
    """All silos that have figures in some run, sorted."""
    return sorted({silo for run in compared for silo, _ in run.figures if silo is not None})


def metrics(compared: Sequence[Compared], silo: str | None) -> list[str]:
    """The metrics that some run has of a silo, or pooled: the known ones, then others by name."""
    found = {name for run in compared for of, name in run.figures if of == silo}
    return sorted(found, key=lambda name: (_ORDER.index(name) if name in _ORDER else 99, name))


def other_rows(compared: Sequence[Compared]) -> list[str]:
    """The parameters for which the runs were not scored on the same rows."""
    names = [row.name for row in differing(compared)]
    return [name for name in names if name.split(".")[0] in {*_ROWS, *_SIZES}]


def shown(value: Parameter) -> str:
    """A parameter's value as it would be written into a run file."""
    if isinstance(value, str):
        return value
    return text.ABSENT if value is None else json.dumps(value)


def entries(value: Parameter) -> list[str]:
    """The entries of a list, as :func:`of` writes it; none of what is no list."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        return value[1:-1].split(", ")
    return []


def as_json(compared: Sequence[Compared]) -> dict[str, Any]:
    """For programs: the runs with all parameters, those that differ, and last and best values."""
    return {
        "runs": [
            {"name": run.name, "status": run.status, "parameters": dict(run.parameters)}
            for run in compared
        ],
        "differing": [
            {"name": row.name, "values": list(row.values)} for row in differing(compared)
        ],
        "figures": [
            {
                "silo": row.silo,
                "name": row.name,
                "better": row.better,
                "runs": [None if figure is None else _figure(figure) for figure in row.figures],
            }
            for row in final(compared)
        ],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    last: dict[str, Any] = {"round": figure.round, "value": figure.last.number}
    if figure.last.number is None:
        last["reason"] = figure.last.reason
    best = None
    if figure.best is not None:
        best = {"round": figure.best_round, "value": figure.best, "leads": figure.best_leads}
    return {"last": {**last, "leads": figure.last_leads}, "best": best}


def _parameters(manifest: Mapping[str, Any]) -> dict[str, Parameter]:
    """The spec's fields by their dotted names, and what the run was made with."""
    spec = dict(manifest["spec"])
    silos = spec.pop("silos", [])
    fields: dict[str, Any] = dict(flat(spec))
    fields["silos"] = sorted(silo["name"] for silo in silos)
    for silo in silos:
        fields[f"silos.{silo['name']}.data"] = silo.get("data")
    fields["spec SHA-256"] = manifest.get("spec_sha256")
    fields["python"] = manifest.get("python")
    for plugin in manifest.get("plugins", []):
        fields[f"plugin {plugin.get('name')}"] = plugin.get("version")
    for library, version in manifest.get("libraries", {}).items():
        fields[f"library {library}"] = version
    return {name: _parameter(value) for name, value in fields.items() if value is not None}


def _parameter(value: Any) -> Parameter:
    """A field's value as it would be written into a run file."""
    if isinstance(value, list):
        return f"[{plain(value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    return json.dumps(value, ensure_ascii=False)


def _rows(compared: Sequence[Compared]) -> list[ParameterRow]:
    groups: dict[str, dict[str, None]] = {}  # what belongs together stands together
    for name in (name for run in compared for name in run.parameters):
        groups.setdefault(name.split(".")[0], {})[name] = None
    names = [name for group in groups.values() for name in group]
    rows = [
        ParameterRow(name, tuple(run.parameters.get(name) for run in compared)) for name in names
    ]
    return [row for row in rows if any(value is not None for value in row.values)]


def _key(value: Parameter) -> tuple[str, Parameter]:
    """Equal for equal values: True is not 1, but 1.0 is."""
    kind = "text" if isinstance(value, str) else "truth" if isinstance(value, bool) else "number"
    return ("absent" if value is None else kind), value


def _figure_row(compared: Sequence[Compared], silo: str | None, name: str) -> FigureRow:
    better = _better(name)
    series = [run.figures.get((silo, name)) for run in compared]
    found = [_outcome(values, better) if values else None for values in series]
    lasts = [None if f is None else f[1].number for f in found]
    bests = [None if f is None else f[3] for f in found]
    last_leads, best_leads = _leads(lasts, better), _leads(bests, better)
    figures = tuple(
        None if f is None else Figure(*f, last_leads[i], best_leads[i]) for i, f in enumerate(found)
    )
    return FigureRow(silo, name, better, figures)


def _outcome(series: Series, better: str | None) -> tuple[int, Value, int | None, float | None]:
    """The last round and value, and the best ones."""
    last = max(series)
    known = [(round, v.number) for round, v in series.items() if v.number is not None]
    if not known or better is None:
        return last, series[last], None, None
    sign = 1 if better == "lower" else -1
    round, number = min(known, key=lambda point: (sign * point[1], point[0]))
    return last, series[last], round, number


def _leads(values: Sequence[float | None], better: str | None) -> list[bool]:
    known = [value for value in values if value is not None]
    if better is None or len(known) < 2:
        return [False] * len(values)
    best = max(known) if better == "higher" else min(known)
    return [value == best for value in values]


def _better(name: str) -> str | None:
    kind = name.rpartition(":")[2]
    if kind in ("AUC", "Accuracy"):
        return "higher"
    return "lower" if kind == "Loss" else None
