"""The names that Pulumi's packages give to properties: a misspelt one would never be found."""

from __future__ import annotations

import collections.abc
import functools
import importlib
import json
import re
import typing
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pulumi._types import input_type_types, is_input_type, unwrap_type

_PACKAGES = ("pulumi_aws", "pulumi_kubernetes")
_MODULES = re.compile(r'resource_modules="""\n(.*?)\n"""', re.DOTALL)


@functools.cache
def tokens() -> dict[str, tuple[str, str]]:
    """Module and class of every resource, by its type token."""
    found = {"pulumi:providers:aws": ("pulumi_aws", "Provider")}
    for package in _PACKAGES:
        file = metadata.distribution(package).locate_file(f"{package}/__init__.py")
        listed = _MODULES.search(Path(str(file)).read_text())
        assert listed is not None, file
        for module in json.loads(listed.group(1)):
            for token, name in module["classes"].items():
                found[token] = module["fqn"], name
    return found


def unknown_names(kind: str, props: Mapping[str, Any]) -> list[str]:
    """The properties that a resource of the kind does not have."""
    module, name = tokens()[kind]
    with warnings.catch_warnings():
        # A module of pulumi-aws defines what is deprecated as well, and Python says so.
        warnings.simplefilter("ignore", DeprecationWarning)
        made = getattr(importlib.import_module(module), name)
    home = importlib.import_module(made.__module__)
    # Where another type has the plain name, the resource's arguments have the longer one.
    arguments = getattr(home, f"{name}InitArgs", None) or getattr(home, f"{name}Args")
    return [*_unknown(props, arguments, "")]


def _unknown(value: Any, expected: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        if is_input_type(expected):
            names = input_type_types(expected)
            for key, item in value.items():
                if key in names:
                    yield from _unknown(item, unwrap_type(names[key]), f"{path}.{key}")
                else:
                    yield f"{path}.{key}"
        elif typing.get_origin(expected) is not collections.abc.Mapping:
            yield f"{path} is no object"
    elif isinstance(value, list):
        if typing.get_origin(expected) is not collections.abc.Sequence:
            yield f"{path} is no list"
            return
        for item in value:
            yield from _unknown(item, unwrap_type(typing.get_args(expected)[0]), path)
