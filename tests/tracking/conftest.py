"""For the tests of tracking."""

from __future__ import annotations

from tests.aws_clients import models_of_aws
from tests.tracking.aws.fixture import experiments_process, experiments_service
from tests.tracking.sdk import sdk, sdk_process

__all__ = ["experiments_process", "experiments_service", "models_of_aws", "sdk", "sdk_process"]
