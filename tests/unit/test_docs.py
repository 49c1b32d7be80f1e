"""Documentation that cannot drift from the code: hooks and exit codes."""

import inspect
from pathlib import Path

import pytest

from fl_core import hookspecs
from fl_core.errors import ERRORS

DOCS = Path(__file__).parents[2] / "docs"


def hooks() -> dict[str, str]:
    """Each hook's name and its signature, e.g. ``before_round(run_id, round)``."""
    return {
        name: f"{name}({', '.join(inspect.signature(function).parameters)})"
        for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
        if hasattr(function, f"{hookspecs.PROJECT}_spec")
    }


def test_there_are_hooks_to_look_for():
    assert {"register_models", "before_round", "after_fit"} <= hooks().keys()
    assert hooks()["before_round"] == "before_round(run_id, round)"


@pytest.mark.parametrize("signature", hooks().values(), ids=list(hooks()))
def test_every_hook_is_documented_with_its_exact_signature(signature):
    assert f"`{signature}`" in (DOCS / "plugins.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", hooks())
def test_every_hook_says_who_calls_it_and_what_follows_if_it_raises(name):
    text = inspect.getdoc(getattr(hookspecs, name)) or ""
    assert "alled by" in text
    assert "f it raises" in text


@pytest.mark.parametrize("kind", ERRORS.values(), ids=lambda kind: f"{kind.exit_code}")
def test_every_exit_code_has_its_page(kind):
    page = (DOCS / "errors" / f"{kind.exit_code}.md").read_text(encoding="utf-8")
    assert kind.title in page


def test_no_page_describes_a_code_that_does_not_exist():
    pages = {path.stem for path in (DOCS / "errors").glob("*.md")} - {"README"}
    assert pages == {str(code) for code in ERRORS} | {"2"}  # 2: click's, for a wrong command line
