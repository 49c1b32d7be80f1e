"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

from fl_core.cli.address import Address
from fl_core.cli.tracker import TrackerChoice
from fl_core.runs import DEFAULT_ROOT

COORDINATOR = click.option(
    "--coordinator",
    type=Address(),
    required=True,
    envvar="FL_COORDINATOR",
    show_envvar=True,
    help="The coordinator's address.",
)
IDENTITY = click.option(
    "--identity",
    type=click.Path(path_type=Path),
    required=True,
    envvar="FL_IDENTITY",
    show_envvar=True,
    help="Folder with your tls.crt, tls.key and ca.crt: see `fl certs`.",
)
TRACK = click.option(
    "--track",
    "trackers",
    type=TrackerChoice(),
    multiple=True,
    envvar="FL_TRACK",
    show_envvar=True,
    help="A service that shows this party's part of runs, such as sagemaker:prefix=heart; may be "
    "repeated. `fl plugins` lists them.",
)
ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=DEFAULT_ROOT,
    show_default=True,
    help="Where runs are kept.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")
