"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

from fl_core.cli.address import Address

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
JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")
