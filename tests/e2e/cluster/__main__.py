"""The commands: ``python3 -m tests.e2e.cluster COMMAND``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from .build import build
from .errors import ClusterError
from .nodes import environment, image_names, inside, load_image
from .paths import KUBECONFIG
from .start import up, works
from .stop import down


def main() -> int:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _exit)  # so that an interrupted start is cleared away
    try:
        return _run(arguments)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.e2e.cluster")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build what the cluster runs; instant when unchanged")
    commands.add_parser("up", help="start the cluster and wait until it works")
    commands.add_parser("down", help="end the cluster and remove all but its logs")
    commands.add_parser("status", help="exit code 0 if the cluster works")
    commands.add_parser("images", help="the images that the node has")
    commands.add_parser("check", help="run a small workload through everything tests rely on")
    load = commands.add_parser("load", help="import a Docker or OCI archive")
    load.add_argument("archive", type=Path)
    run = commands.add_parser("run", help="run a command in the cluster's network")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "build":
            build(_say)
        case "up":
            _say(f"{'running' if up() else 'running already'}: KUBECONFIG={KUBECONFIG}")
        case "down":
            _say("ended" if down() else "none is running")
        case "status":
            working = works()
            _say("running" if working else "not running")
            return 0 if working else 1
        case "images":
            print("\n".join(image_names()))
        case "load":
            load_image(arguments.archive)
        case "check":
            from .check import check

            check(_say)
        case "run":
            command = inside(arguments.words)
            os.execvpe(command[0], command, environment())  # noqa: S606
    return 0


def _say(text: str) -> None:
    print(f"cluster: {text}", flush=True)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
