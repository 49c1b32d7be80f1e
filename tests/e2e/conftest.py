"""The cluster, if one answers."""

from __future__ import annotations

import pytest

from tests.e2e import kubectl as clusters
from tests.e2e.kubectl import Kubectl


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """The cluster of KUBECONFIG, else the one that was started for the tests."""
    try:
        return clusters.find()
    except clusters.NoCluster as error:
        pytest.skip(str(error))
