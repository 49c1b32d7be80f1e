"""What botocore knows of AWS's services, read from disk once for the clients of all tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import botocore.loaders
import pytest


@pytest.fixture(scope="session", autouse=True)
def models_of_aws() -> Iterator[None]:
    """Otherwise each session of boto3 reads them for itself, which takes a tenth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(botocore.loaders.create_loader)
        patch.setattr(botocore.loaders, "create_loader", once)
        yield
