"""Runs in the scanners' environment: policies by name in, parliament's findings out, as JSON.

Its own command line would write a log of a fixed name to /tmp.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer on standard output."""
    parliament: Any = importlib.import_module("parliament")
    parliament.override_config(
        Path(parliament.__file__).parent / "community_auditors" / "config_override.yaml"
    )
    findings: set[tuple[str, ...]] = set()
    for name, document in json.load(sys.stdin).items():
        # An action that parliament does not know ends its reading of the whole policy: so then the
        # rest is read by itself as well.
        known = _known(parliament, document)
        for judged in [document] if known == document else [document, known]:
            policy = parliament.analyze_policy_string(
                json.dumps(judged), name, include_community_auditors=True, config=parliament.config
            )
            for finding in policy.findings:
                title = parliament.enhance_finding(finding).title
                findings |= {(name, finding.issue, title, about) for about in _parts(finding)}
    json.dump(sorted(findings), sys.stdout)


def _known(parliament: Any, document: dict[str, Any]) -> dict[str, Any]:
    """The policy without the actions that parliament does not know."""
    unknown = (parliament.UnknownActionException, parliament.UnknownPrefixException)
    statements = []
    for statement in document["Statement"]:
        named = "Action" if "Action" in statement else "NotAction"
        actions = statement[named] if isinstance(statement[named], list) else [statement[named]]
        kept = []
        for action in actions:
            try:
                parliament.expand_action(action)
            except unknown:
                continue
            kept.append(action)
        if kept:
            statements.append(statement if kept == actions else statement | {named: kept})
    return document | {"Statement": statements}


def _parts(finding: Any) -> list[str]:
    """What it is about, action by action, so that explaining one explains no other."""
    location = finding.location if isinstance(finding.location, dict) else {}
    detail = finding.detail or location.get("actions") or location.get("string") or ""
    if not isinstance(detail, list):
        return [str(detail)]
    return [" ".join(map(str, one.values())) if isinstance(one, dict) else one for one in detail]


if __name__ == "__main__":
    main()
