"""report.html: one self-contained page about a run.

No script, no font, no image and no address outside the page; everything a run folder holds is
taken as hostile text and escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_core import runs
from fl_core.errors import FlError
from fl_core.files import write_atomic
from fl_core.report import sections, template
from fl_core.report.figures import Figures
from fl_core.runs import REPORT_FILE, Run

_PAGE = "page.html"


def render(run: Run) -> str:
    """The report of ``run``, whatever its status and however little it has left behind."""
    figures = Figures.of(run)
    scores = run.scores()
    return template.load(_PAGE).render(
        head=sections.head(run, figures),
        headline=sections.headline(run, figures),
        curves=sections.curves(figures),
        silos=sections.silo_table(run, figures),
        rounds=sections.round_table(figures),
        times=sections.times(run, figures),
        final=sections.final_model(scores),
        tracking=sections.tracking(run),
        manifest=sections.manifest(run),
    )


def prepare() -> None:
    """Load the template. For a program that has to wait anyway: `write` would do it."""
    template.load(_PAGE)


def write(run: Run) -> Path:
    """Write report.html into the run's folder, whole or not at all. Raises StorageError."""
    path = run.folder / REPORT_FILE
    write_atomic(path, render(run))
    return path


def conclude(folder: Path, manifest: Mapping[str, Any], error: FlError | None) -> Run:
    """Write report and manifest of a run that has ended, with ``error`` if it did so.

    The manifest comes last: a run that it says has ended is complete.
    What goes wrong with that does not hide the run's own error, which is then raised.
    """
    try:
        finished = runs.concluded(folder, manifest, error)
        try:
            write(finished)
        finally:
            runs.write_manifest(folder, finished.manifest)
    except Exception as failure:
        if error is None:
            raise
        raise error from failure
    return finished
