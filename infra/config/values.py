"""What stands in the stack's file, and what a model makes of it."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env
from pydantic import BaseModel, ValidationError

from fl_core.fields import field_error
from infra.config.common import ConfigError
from infra.config.keys import keys

SEE = "infra/README.md has every key"
_TEXT = (str, str | None)
Model = TypeVar("Model", bound=BaseModel)


def given(model: type[BaseModel]) -> dict[str, Any]:
    """The values as they stand in the stack's file, for a model."""
    project = pulumi.Config()
    prefix = f"{project.name}:"
    # pulumi.Config looks up one key and lists none, but a misspelt key must not go unseen.
    listed = {
        key.removeprefix(prefix)
        for key in {**get_config_env(), **CONFIG.get()}
        if key.startswith(prefix)
    }
    found = {name: project.get(name) for name in {*listed, *model.model_fields}}
    plain = {name for name, field in model.model_fields.items() if field.annotation in _TEXT}
    return {
        name: value if name in plain else _parsed(value)
        for name, value in sorted(found.items())
        if value is not None
    }


def checked(content: dict[str, Any], model: type[Model]) -> Model:
    """The values as a model. Raises ConfigError, naming the key."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise field_error(error, content, keys(), ConfigError, model, SEE) from error


def _parsed(text: str) -> Any:
    """What is not one value comes as JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text
