"""``fl certs``: a federation's authority, and certificates for its parties."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path

import click

from fl_core.errors import CertificateError
from fl_core.spec import RESERVED, SILO_NAME
from fl_core.transport.authority import Authority
from fl_core.transport.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, Identity

MAX_BYTES = 1024 * 1024
_FOLDER = click.option(
    "--authority",
    "folder",
    type=click.Path(path_type=Path),
    default="authority",
    show_default=True,
    help="The authority's folder. Its key signs for the whole federation: keep it off-line.",
)
_OUT = click.option(
    "--out", type=click.Path(path_type=Path), help="The party's folder; its name when left out."
)


def _days(default: int):
    return click.option(
        "--days",
        type=click.IntRange(1, 3650),
        default=default,
        show_default=True,
        help="How long it is valid.",
    )


@click.group()
def certs() -> None:
    """Make a federation's certificate authority, and certificates for its parties."""


@certs.command()
@click.argument("federation")
@_FOLDER
@_days(3650)
def authority(federation: str, folder: Path, days: int) -> None:
    """Make the authority of FEDERATION."""
    _check_name(federation)
    Authority(federation, dt.timedelta(days=days)).save(folder)
    click.echo(f"authority of {federation} in {folder}; keep {folder}/ca.key secret and off-line")


@certs.command()
@click.argument("kind", type=click.Choice(["aggregator", "silo", "operator"]))
@click.argument("name", required=False)
@_FOLDER
@_OUT
@_days(365)
def issue(
    kind: str,
    name: str | None,
    folder: Path,
    out: Path | None,
    days: int,
) -> None:
    """Make key and certificate of a party: `aggregator`, `silo NAME` or `operator NAME`."""
    if (name is None) != (kind == "aggregator"):
        raise click.UsageError("give a name to a silo or an operator, and none to the aggregator")
    if name is not None:
        _check_name(name)
    signer = Authority.load(folder, dt.timedelta(days=days))
    if kind == "aggregator":
        identity = signer.aggregator([])
    else:
        assert name is not None
        identity = signer.silo(name) if kind == "silo" else signer.operator(name)
    target = out or Path(name or kind)
    identity.save(target)
    click.echo(f"{identity.party.uri} in {target}, valid until {identity.last:%Y-%m-%d}")
    click.echo(f"certificate SHA-256 {identity.fingerprint}")


@certs.command()
@click.argument("folder", type=click.Path(path_type=Path))
def save(folder: Path) -> None:
    """Save an identity that standard input holds as JSON, such as Pulumi's output, into FOLDER."""
    try:
        given = json.loads(sys.stdin.read(MAX_BYTES))
        parts = [given[name].encode() for name in (CERTIFICATE_FILE, KEY_FILE, CA_FILE)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CertificateError(
            "standard input holds no identity",
            f'it must be JSON: {{"{CERTIFICATE_FILE}": ..., "{KEY_FILE}": ..., "{CA_FILE}": ...}}',
        ) from error
    identity = Identity(*parts)
    identity.check(Path("standard input"))
    identity.save(folder)
    click.echo(f"{identity.party.uri} in {folder}, certificate SHA-256 {identity.fingerprint}")


def _check_name(name: str) -> None:
    if not SILO_NAME.fullmatch(name) or name in RESERVED:
        raise click.BadParameter(
            f"{name!r}: use lower-case letters, digits and hyphens, at most 63, and none of "
            f"{', '.join(sorted(RESERVED))}"
        )
