"""Models of what users write: strict, and with errors in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from fl_core.errors import FlError, nearest
from fl_core.yaml_file import SpecSource

_QUOTE = "quote what is text: YAML reads yes, no, on, off, true and false as booleans; "
_ANY = TypeAdapter(Any)
_WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of fields",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "model_attributes_type": "must be a mapping of fields",
    "model_type": "must be a mapping of fields",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "is too short: {min_length} or more characters",
    "string_type": "must be text",
    "too_short": "must have at least {min_length} entries, not {actual_length}",
    "too_long": "must have at most {max_length} entries, not {actual_length}",
    "tuple_type": "must be a list",
}


class Strict(BaseModel):
    """Base of models of what users write: unknown fields are refused, and a boolean is no number.

    Other conversions are made: YAML reads ``1e-3`` as text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _boolean_is_no_number(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        wrong: list[Any] = [
            {"type": f"{number}_type", "loc": (name,), "input": given[name]}
            for name, field in _fields(cls).items()
            if isinstance(given.get(name), bool) and (number := _number(field))
        ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return values


def field_error(
    error: ValidationError,
    content: Any,
    source: SpecSource,
    kind: type[FlError],
    model: type[BaseModel],
    see: str,
    prefix: Sequence[str] = (),
) -> FlError:
    """An error of ``kind`` from the first complaint about ``content``, as ``model``, at ``prefix``.

    ``see`` says where the fields are described.
    """
    first = error.errors(include_url=False)[0]
    kinds, example = _descend(model, first["loc"])
    path = [*prefix, *_written(first["loc"], content)]
    if first["type"] in ("union_tag_not_found", "union_tag_invalid"):
        tag = first.get("ctx", {})["discriminator"].strip("'")
        known = " or ".join(_tag_of(member, tag) for member in get_args(kinds[-1]))
        given = first["input"]
        value = f" (value {given[tag]!r:.80})" if isinstance(given, dict) and tag in given else ""
        return kind(f"{source.where([*path, tag])}: must be {known}{value}", f"{example}{see}")
    if first["type"] == "missing":
        where = source.where([*path, str(first["loc"][-1])])
        return kind(f"{where}: is missing", f"add it; {example}{see}")
    where = source.where(path)
    if first["type"] == "extra_forbidden":
        return kind(
            f"{where}: unknown field (value {first['input']!r:.80})",
            nearest(path[-1], _names(_required(kinds[-2]))),
        )
    hint = _QUOTE if isinstance(first["input"], bool) else ""
    if first["type"] == "string_type" and type(first["input"]) in (int, float):
        hint = f'write it in quotes: "{first["input"]}"; '
    return kind(f"{where}: {_problem(first)}", f"{hint}{example}{see}")


def _problem(found: Mapping[str, Any]) -> str:
    """What pydantic found, in plain words, with the value unless that is a whole mapping."""
    context = found.get("ctx", {})
    if found["type"] == "too_short" and context["min_length"] == 1:
        field = str(found["loc"][-1])
        return f"give at least one {field.removesuffix('s')}"
    if found["type"] in _WORDS:
        problem = _WORDS[found["type"]].format(**context)
    else:
        problem = found["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    value = found["input"]
    return problem if isinstance(value, dict) else f"{problem} (value {value!r:.80})"


def _written(location: Sequence[str | int], content: Any) -> list[str]:
    """The parts of pydantic's ``location`` that stand in ``content``: no names of union members."""
    path: list[str] = []
    for part in location:
        inner: Any = dict(enumerate(content)) if isinstance(content, list) else content
        if isinstance(inner, dict) and part in inner:
            path.append(str(part))
            content = inner[part]
    return path


def _descend(model: type[BaseModel], location: Sequence[str | int]) -> tuple[list[Any], str]:
    """The types from ``model`` down to ``location``, and an example of its deepest field."""
    kinds: list[Any] = [model]
    example = ""
    for part in location:
        kind, found = _required(kinds[-1]), None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = _fields(kind).get(str(part))
            if field is not None:
                found, example = field.annotation, _example(str(part), field)
        elif get_origin(kind) in (Union, UnionType):
            members = get_args(kind)
            found = next((one for one in members if str(part) == _tag_of(one, "kind")), None)
        elif arguments := get_args(kind):  # a mapping's or a sequence's
            found = arguments[-1] if get_origin(kind) is dict else arguments[0]
        kinds.append(get_args(found)[0] if get_origin(found) is Annotated else found)
    return kinds, example


def _required(kind: Any) -> Any:
    """``X`` for ``X | None``, of which pydantic's locations say nothing."""
    members = [one for one in get_args(kind) if one is not type(None)]
    optional = get_origin(kind) in (Union, UnionType) and len(members) < len(get_args(kind))
    return members[0] if optional and len(members) == 1 else kind


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the names that users write."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _number(field: FieldInfo) -> str:
    """The kind of number that the field takes, ``int`` or ``float``, or nothing."""
    kinds = (field.annotation, *get_args(field.annotation))
    found = next((kind.__name__ for kind in (int, float) if kind in kinds), "")
    return "" if bool in kinds else found


def _names(kind: Any) -> list[str]:
    return list(_fields(kind)) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _tag_of(member: Any, name: str) -> str:
    """The word that the field ``name`` of a union's member stands for."""
    field = member.model_fields.get(name) if hasattr(member, "model_fields") else None
    return str(get_args(field.annotation)[0]) if field is not None else ""


def _example(name: str, field: FieldInfo) -> str:
    """``e.g. `silos: [north, south]`; ``, or nothing where there is no example."""
    value = field.examples[0] if field.examples else None
    if value is None and not field.is_required() and field.default_factory is None:
        value = field.default
    if value is None or value == "":
        return ""
    plain = _ANY.dump_python(value, mode="json")
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000)
    return f"e.g. `{name}: {text.strip().removesuffix('...').strip()}`; "
