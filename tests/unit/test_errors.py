"""Errors: codes are distinct, and an error survives the way between processes."""

import json

import pytest

from fl_core import errors
from fl_core.errors import ERRORS, FlError, from_dict, nearest


def kinds(base: type[FlError] = FlError) -> list[type[FlError]]:
    return [base, *(found for child in base.__subclasses__() for found in kinds(child))]


def test_every_kind_of_error_has_a_code_and_a_title_of_its_own():
    declared = [kind for kind in kinds() if kind.__module__ == errors.__name__]
    assert sorted(kind.exit_code for kind in declared) == sorted(ERRORS)
    assert len({kind.title for kind in declared}) == len(declared)
    assert all(0 < code < 256 for code in ERRORS)


@pytest.mark.parametrize("kind", ERRORS.values(), ids=lambda kind: kind.__name__)
def test_an_error_is_the_same_on_the_other_side_of_a_pipe(kind):
    error = kind("what is wrong", "what to do")
    again = from_dict(json.loads(json.dumps(error.as_dict())))
    assert type(again) is kind
    assert (again.message, again.remedy, str(again)) == (
        "what is wrong",
        "what to do",
        "what is wrong",
    )


def test_an_unknown_code_becomes_an_internal_error():
    assert type(from_dict({"code": 99, "message": "m", "remedy": "r"})) is FlError


def test_nearest_suggests_the_closest_name_and_lists_all():
    assert nearest("fedvag", ["fedprox", "fedavg"]) == (
        "did you mean 'fedavg'? available: fedavg, fedprox"
    )
    assert nearest("zzz", ["a", "b"]) == "available: a, b"
    assert nearest("zzz", []) == "available: none"
