"""The command ``fl``: one module a command group."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from fl_core.interrupts import leaving


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``fl`` and exit: 0, 2 for a wrong call, or the error's code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(arguments)
    except KeyboardInterrupt:  # on the way into a command, or out of it
        _tell_interrupted()
        status = 130
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # what was still to be printed has no reader; let the exit not fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # Where Ctrl-C came while code in a string ran, as when a dataclass is made, CPython means to
    # end by that signal, although it was caught; it forgets that when the next such code begins.
    exec("")  # noqa: S102
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    # Imported here, so that a Ctrl-C in the second that this takes ends as any other does.
    with leaving(_tell_interrupted):
        import click

        from fl_core.cli.commands import cli
        from fl_core.cli.console import colour
        from fl_core.cli.errors import tell, tell_wrong_call
        from fl_core.errors import FlError, Interrupted
        from fl_core.plugins import described

    as_json = "--json" in arguments
    try:
        status = cli.main(arguments, prog_name="fl", standalone_mode=False, color=colour())
    except click.exceptions.Abort:
        tell(Interrupted("interrupted"), as_json)
        return Interrupted.exit_code
    except click.ClickException as error:
        tell_wrong_call(error, as_json)
        return error.exit_code
    except FlError as error:
        tell(error, as_json)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has enough
        return 0
    except Exception as bug:  # noqa: BLE001 - the last resort of the program: a numbered exit code
        traceback.print_exc()
        tell(FlError(described(bug), "this is a bug of fl-core: report it"), as_json)
        return FlError.exit_code
    return status or 0


def _tell_interrupted() -> None:
    sys.stderr.write("interrupted\n")
