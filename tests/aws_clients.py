"""What all tests with a client of AWS need: nothing of this machine, and little of its time."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import botocore.loaders
import pytest


@pytest.fixture(scope="session", autouse=True)
def models_of_aws() -> Iterator[None]:
    """Read from disk once: each session of boto3 would take a tenth of a second for it."""
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(botocore.loaders.create_loader)
        patch.setattr(botocore.loaders, "create_loader", once)
        yield


def ordinary_chain(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Credentials and region for the ordinary chain, with nothing of this machine in it.

    ``folder`` has no AWS settings.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    patch.setenv("AWS_CONFIG_FILE", str(folder / "no-config"))
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "no-credentials"))
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_ACCESS_KEY_ID", "known")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    # boto3's own session keeps the credentials of the first test that asked.
    patch.setattr("boto3.DEFAULT_SESSION", None)
