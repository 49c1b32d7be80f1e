"""The body of a program's process: told by language_host.py what to run, on standard input.

Part of that test double. It imports nothing of this project: it runs in the program's environment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import runpy
import sys
import traceback
from typing import Any

import pulumi
import pulumi.runtime
from pulumi.runtime import settings

TOLD = 32


def main(start: dict[str, Any]) -> int:
    """Run the program; its exit code."""
    settings.reset_options(**start["options"])
    pulumi.runtime.set_all_config(start["config"], start["secrets"])
    sys.argv = [start["program"], *start["arguments"]]
    # The folder of this file is nothing that a program may import from. What stands first for it
    # is the folder that it lies in, which runpy puts there.
    del sys.path[0]
    # When a resource fails, what waits for its outputs is left as it is, and asyncio tells of each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    def program() -> None:
        runpy.run_path(start["program"], run_name="__main__")

    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(program))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return TOLD
    except Exception:  # noqa: BLE001 - whatever a program raises is told to its user
        pulumi.log.error(f"Program failed with an unhandled exception:\n{traceback.format_exc()}")
        return TOLD
    finally:
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.load(sys.stdin)))
