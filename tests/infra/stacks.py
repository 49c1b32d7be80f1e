"""What the program makes of each stack's file on AWS, recorded once a process.

The files leave accounts open, so previews show them as they are; where things are made, the
accounts of :data:`FILLED` stand in them.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import yaml

from .recording import PROJECT, Recording, record

FOLDER = Path(__file__).parents[2] / "stacks"
AWS = ("dev", "staging", "prod")
_OPEN = re.compile(r"<([^<>]+)>")
DIGEST = "sha256:" + "5" * 64


def written(stack: str) -> dict[str, Any]:
    """The project's keys as the stack's file has them."""
    content = yaml.safe_load((FOLDER / f"Pulumi.{stack}.yaml").read_text())["config"]
    return {key.removeprefix(f"{PROJECT}:"): value for key, value in content.items()}


def filled(stack: str) -> dict[str, Any]:
    """The same, with accounts and an image in place of what stands open."""
    content = written(stack)
    accounts = [content["aggregator"], *content["silos"]]
    for i, party in enumerate(accounts, start=1):
        party["account"] = f"{i}" * 12
        party["external_id"] = f"external-{party.get('name', 'aggregator')}"
        if "cidrs" in party.get("api", {}):
            party["api"]["cidrs"] = ["203.0.113.7/32"]
    content["alerts"]["emails"] = ["on-call@hospital.example"]
    region = content["aggregator"]["region"]
    content["image"] = f"{'1' * 12}.dkr.ecr.{region}.amazonaws.com/heart/fl-silos@{DIGEST}"
    assert not _OPEN.search(str(content))
    return content


@functools.cache
def recorded(stack: str) -> Recording:
    """What the stack makes, filled in, with its workloads."""
    return record(filled(stack), stack)


@functools.cache
def previewed(stack: str) -> Recording:
    """The first preview of the stack's file as it is."""
    return record(written(stack), stack, preview=True)
