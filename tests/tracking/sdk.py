"""SageMaker's own SDK, in its environment build/sagemaker, against a local AWS.

The fixture ``sdk`` runs a function of :mod:`tests.tracking.sdk_program` there, and gives what it
says::

    runs = sdk(experiments_service.environment, "read", "fed-client-berlin", "a-bucket")["runs"]
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
ENVIRONMENT = _ROOT / "build" / "sagemaker"
PYTHON = ENVIRONMENT / "bin" / "python"
"""Has the SDK, boto3 and what fl_core imports for its command line."""

Sdk = Callable[..., dict[str, Any]]
Ask = Callable[..., Mapping[str, Any]]


def ready() -> None:
    """Skip the test where the SDK is not installed."""
    if not (ENVIRONMENT / ".ready").exists():
        pytest.skip("no SageMaker SDK: make build/sagemaker/.ready, which make test does")


@pytest.fixture(scope="session")
def sdk_process() -> Iterator[Ask]:
    """Asks :mod:`tests.tracking.fl_with_sdk`: an environment, and what it is to do."""
    ready()
    command = [PYTHON, Path(__file__).with_name("fl_with_sdk.py")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        command,
        env={**kept, "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def ask(environment: Mapping[str, str], **what: Any) -> Mapping[str, Any]:
            question = json.dumps({"environment": dict(environment), **what})
            print(question, file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.fixture
def sdk(sdk_process: Ask) -> Sdk:
    """Runs a function: the environment to run it in, its name, its arguments."""

    def run(environment: Mapping[str, str], *command: str) -> dict[str, Any]:
        answer = sdk_process(environment, sdk=command)
        assert answer["code"] == 0, answer["err"]
        return json.loads(answer["out"].splitlines()[-1])

    return run
