"""What coordinator and agents check of a run file that has come over the network."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from fl_core.errors import DataError, SpecError
from fl_core.fields import field_error
from fl_core.files import inside
from fl_core.job import Job, resolve
from fl_core.plugins import Plugins
from fl_core.spec import SEE, RunSpec
from fl_core.yaml_file import SpecSource

SOURCE = SpecSource("the run file", {})


def parsed(content: object) -> RunSpec:
    """The spec in a message. Raises SpecError."""
    try:
        return RunSpec.model_validate(content)
    except ValidationError as error:
        raise field_error(error, content, SOURCE, SpecError, RunSpec, SEE) from error


def _check_path(silo: str, data: str) -> None:
    try:
        inside(Path("its folder"), data)
    except DataError as error:
        raise DataError(f"silo {silo!r}: data: {error.message}", error.remedy) from error


def resolved(spec: RunSpec, plugins: Plugins, folder: Path) -> Job:
    """The job, if the spec names no file but such as may lie in ``folder``. Raises FlError."""
    for silo in spec.silos:
        if silo.data is not None:
            _check_path(silo.name, silo.data)
    return resolve(spec, SOURCE, plugins, folder, own_data=folder)
