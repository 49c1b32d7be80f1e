"""``fl coordinator`` and ``fl agent``."""

from __future__ import annotations

import logging
import os
import re
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fl_core.cli.address import Address
from fl_core.cli.options import COORDINATOR, IDENTITY, TRACK
from fl_core.spec import SILO_NAME, Choice

if TYPE_CHECKING:
    from fl_core.service.loop import Loop

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def _folder(default: str, what: str):
    return click.option(
        "--folder",
        type=click.Path(path_type=Path),
        default=default,
        envvar="FL_FOLDER",
        show_envvar=True,
        show_default=True,
        help=what,
    )


def _health(default: str):
    return click.option(
        "--health",
        type=Address(),
        default=default,
        envvar="FL_HEALTH",
        show_envvar=True,
        show_default=True,
        help="Where GET /healthy and GET /ready are answered.",
    )


@click.command()
@IDENTITY
@_folder("coordinator", "Where queue, history and runs are kept.")
@click.option(
    "--host",
    default="127.0.0.1",
    envvar="FL_HOST",
    show_envvar=True,
    show_default=True,
    help="Address to listen on; 0.0.0.0 for all.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65000),
    default=8440,
    envvar="FL_PORT",
    show_envvar=True,
    show_default=True,
    help="Port for agents and operators; runs have the ports above it.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 32),  # below the port for health
    default=1,
    envvar="FL_SLOTS",
    show_envvar=True,
    show_default=True,
    help="How many runs at once; each has a port of its own.",
)
@_health("127.0.0.1:8480")
@TRACK
@click.option(
    "--exclude",
    multiple=True,
    metavar="WHOM",
    envvar="FL_EXCLUDE",
    show_envvar=True,
    help="Turned away although the certificate is good: a silo by name, or one certificate of "
    "any party by its SHA-256; may be repeated.",
)
def coordinator(
    identity: Path,
    folder: Path,
    host: str,
    port: int,
    slots: int,
    health: tuple[str, int],
    trackers: tuple[Choice, ...],
    exclude: tuple[str, ...],
) -> None:
    """Run a federation's coordinator, until SIGTERM or Ctrl-C.

    Agents and operators dial it. It queues runs and keeps their history.
    """
    # That a stranger's certificate was turned away, gRPC alone knows, and says at this level.
    os.environ.setdefault("GRPC_VERBOSITY", "INFO")
    from fl_core import courier
    from fl_core import plugins as plugin_loader
    from fl_core.service.coordinator import Coordinator, Settings
    from fl_core.service.operations import Operations
    from fl_core.transport.identity import Identity

    for whom in exclude:
        if not (SILO_NAME.fullmatch(whom) or _FINGERPRINT.fullmatch(whom)):
            raise click.BadParameter(
                f"{whom!r} is neither a silo's name nor a SHA-256", param_hint="--exclude"
            )
    known = Identity.load(identity, "aggregator")
    plugins = plugin_loader.load()
    courier.trackers(trackers, plugins)  # a wrong one is told now, not in the log of a run
    service = Coordinator(
        Settings(known, folder, host, port, slots, health, frozenset(exclude), trackers), plugins
    )
    _settle("coordinator", service.loop)
    service.run(Operations(service, plugins).answer)


@click.command()
@COORDINATOR
@IDENTITY
@click.option(
    "--data",
    required=True,
    envvar="FL_DATA",
    show_envvar=True,
    metavar="PATH",
    help="This silo's own data: a folder, or s3://BUCKET/PREFIX. A run that names no file of it "
    "reads SILO.csv there.",
)
@_folder("agent", "Where the logs of this silo's part in runs are kept.")
@_health("127.0.0.1:8481")
@TRACK
def agent(
    coordinator: tuple[str, int],
    identity: Path,
    data: str,
    folder: Path,
    health: tuple[str, int],
    trackers: tuple[Choice, ...],
) -> None:
    """Run a silo's agent, until SIGTERM or Ctrl-C.

    It dials the coordinator, listens for nobody, and takes part in the runs that name its silo.
    """
    from fl_core import courier
    from fl_core import plugins as plugin_loader
    from fl_core.own_data import check
    from fl_core.service.agent import Agent, Settings
    from fl_core.transport.identity import Identity

    known = Identity.load(identity, "silo")
    check(data)
    plugins = plugin_loader.load()
    courier.trackers(trackers, plugins)
    service = Agent(Settings(known, coordinator, data, folder, health, trackers), plugins)
    _settle(f"agent {known.party.name}", service.loop)
    service.run()


def _settle(name: str, loop: Loop) -> None:
    """What a service's process is like: its log, its name, its end."""
    import setproctitle

    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("fl_core").setLevel(logging.INFO)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the key
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each stream and stranger takes one
    setproctitle.setproctitle(f"fl {name}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: loop.stop())
