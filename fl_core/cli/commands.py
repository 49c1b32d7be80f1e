"""All commands of ``fl``, put together."""

from __future__ import annotations

import click

from fl_core.cli import (
    certs,
    chaos,
    experiments,
    operator,
    plugins,
    predict,
    run,
    runs,
    services,
    spec,
    track,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fl-core", prog_name="fl")
def cli() -> None:
    """Train a model together without handing over data."""


for _command in (
    run.run,
    run.check,
    chaos.chaos,
    plugins.plugins,
    plugins.datasets,
    spec.spec,
    predict.predict,
    runs.runs,
    runs.report,
    track.track,
    experiments.experiments,
    certs.certs,
    services.coordinator,
    services.agent,
    operator.submit,
    operator.status,
    operator.logs,
    operator.stop,
    operator.fetch,
    operator.remove,
    operator.readmit,
):
    cli.add_command(_command)
