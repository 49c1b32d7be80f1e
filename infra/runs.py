"""The run that a stack proposes: what its environment has as defaults, with the stack's silos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from fl_core.fields import field_error
from fl_core.spec import SEE, RunSpec
from infra.config.aws import WithRun
from infra.config.common import ConfigError
from infra.config.keys import keys, where


def default(config: WithRun, silos: Sequence[str]) -> str | None:
    """A run file for `fl submit`, if the stack has one. Raises ConfigError, naming the key."""
    if config.run is None:
        return None
    if "silos" in config.run:
        raise ConfigError(
            f"{where(['run', 'silos'])}: the silos of a stack's run are the stack's",
            "take them out; a run with other silos has a run file of its own",
        )
    content: dict[str, Any] = {**config.run, "silos": list(silos)}
    try:
        RunSpec.model_validate(content)
    except ValidationError as error:
        raise field_error(
            error, content, keys(), ConfigError, RunSpec, SEE, prefix=["run"]
        ) from error
    return yaml.safe_dump(content, sort_keys=False)
