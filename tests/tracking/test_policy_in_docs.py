"""docs/tracking.md shows the rights of the roles that the Pulumi program makes.

``UPDATE_SNAPSHOTS=1 pytest tests/tracking/test_policy_in_docs.py`` writes them anew.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pulumi

from fl_core.tracking import experiments
from infra import policies, roles
from infra.policies import Statement
from tests.infra import aws, iam
from tests.infra.recording import record

PAGE = Path(__file__).parents[2] / "docs" / "tracking.md"
BLOCK = re.compile(r"(<!-- policy:begin -->\n).*?(<!-- policy:end -->)", re.DOTALL)
BUCKET = "arn:aws:s3:::heart-runs"
KEY = f"arn:aws:kms:{aws.REGION}:{aws.IDS['aggregator']}:key/ID"
WIDTH = 100
ORDER = ("Version", "Statement", "Sid", "Effect", "Action", "Resource", "Condition")
"""As AWS's own examples have it."""


def silos() -> list[Statement]:
    """What the role of the silo `north` needs."""
    return roles.tracking(aws.account("north"), experiments.of_silo("heart", "north"))


def aggregators() -> list[Statement]:
    """What the aggregator's role needs where it has a bucket."""
    return roles.artifacts_access(BUCKET, KEY)


def written() -> str:
    """The part of the page between the marks."""

    def program() -> None:
        pulumi.export("silo", policies.document(*silos()))
        pulumi.export("aggregator", policies.document(*aggregators()))

    outputs = record({}, program=program).outputs
    kept = json.loads(outputs["aggregator"])["Statement"]
    return (
        f"```json\n{shown(json.loads(outputs['silo']))}\n```\n\n"
        "The aggregator's is the same of `heart-aggregator`. With `bucket=heart-runs`, which must "
        "be its own\naccount's, it has these statements besides; the last where the bucket has a "
        "key of yours:\n\n"
        f"```json\n{shown(kept)}\n```\n"
    )


def shown(value: Any, room: int = WIDTH) -> str:
    """JSON, on one line where that has room."""
    if isinstance(value, dict):
        value = {name: value[name] for name in sorted(value, key=_place)}
    line = json.dumps(value)
    if len(line) <= room or not isinstance(value, dict | list):
        return line
    if isinstance(value, dict):
        start, end = "{}"
        items = [f'"{name}": {shown(one, room - len(name) - 6)}' for name, one in value.items()]
    else:
        start, end = "[]"
        items = [shown(one, room - 2) for one in value]
    inside = textwrap.indent(",\n".join(items), "  ")
    return f"{start}\n{inside}\n{end}"


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


def test_the_page_shows_what_the_roles_may_do():
    page = PAGE.read_text(encoding="utf-8")
    anew, places = BLOCK.subn(lambda match: f"{match[1]}{written()}{match[2]}", page)
    assert places == 1
    if os.environ.get("UPDATE_SNAPSHOTS"):
        PAGE.write_text(anew, encoding="utf-8")
        page = anew
    assert page == anew, "if that is meant: UPDATE_SNAPSHOTS=1 pytest tests/tracking"


def test_what_the_page_shows_is_json_and_all_that_the_code_calls():
    match = BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert match is not None
    silo, kept = (
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", match[0], re.DOTALL)
    )
    named = {action for one in silo["Statement"] for action in one["Action"]}
    assert named == {f"sagemaker:{action}" for action in experiments.ACTIONS}
    files = {"Version": silo["Version"], "Statement": kept}
    place = f"{BUCKET}/{experiments.ARTIFACTS}/run/model.safetensors"
    for action in experiments.ARTIFACT_ACTIONS:
        assert iam.decision(json.dumps(files), action, place) == "Allow"
