"""A federation: on AWS where the stack's file names a party, else on one cluster that is there."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

# Pulumi runs this file in its own folder, from where the project's packages are not found.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pulumi
from pulumi.runtime.settings import SETTINGS

from fl_core.errors import FlError


async def main() -> None:
    """Import what the stack needs, and make it."""
    try:
        if pulumi.Config().get("party") is None:
            from infra import local as program
        else:
            from infra import federation as program
        program.main()
    except FlError as error:
        raise pulumi.RunError(f"{error.message}; {error.remedy}") from error
    await _registered()


async def _registered() -> None:
    """Wait until the engine has answered for every resource.

    Pulumi would do so itself, and look through all that is open for each answer: half of the time
    of a large stack.
    """
    while waiting := [one for one in getattr(SETTINGS, "outputs", ()) if not one.done()]:
        await asyncio.gather(*waiting, return_exceptions=True)


pulumi.run(main)
