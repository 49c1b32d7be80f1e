"""The fixture ``experiments_service``: a local AWS of a test's own, and everything about it.

In a conftest.py::

    from tests.tracking.aws.fixture import experiments_process, experiments_service  # noqa: F401

and in a test::

    def test_throttled(experiments_service):
        experiments_service.fault("throttle", operation="BatchPutMetrics", times=2)
        ...  # boto3 here, and processes given experiments_service.environment, reach it
        assert [one.step for one in experiments_service.points("fed-client-a-run-1")] == [1, 2]
        assert [call["operation"] for call in experiments_service.calls()] == [...]

The test's own environment is set as well: every service's address, keys, region eu-central-1, and
nothing of this machine. Faults are those of :class:`tests.tracking.aws.faults.Fault`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.aws_clients import ordinary_chain
from tests.tracking.aws.app import ACCOUNT
from tests.tracking.aws.faults import Kind
from tests.tracking.aws.policy import Statements
from tests.tracking.aws.store import COMPONENT, Point, Store

REGION = "eu-central-1"
KEY = "AKIALOCAL"
LOG = "service.log"
_ROOT = Path(__file__).parents[3]


class ExperimentsService:
    """A running service, whose data lies in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = self._first = folder
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def begin(self, folder: Path) -> None:
        """Be a new service, with its data in ``folder``, at the same address."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if self._process is None:
            self.start()
        else:
            self._control("begin", str(folder))

    def log(self) -> str:
        """What the process has said since it was first started."""
        return (self._first / LOG).read_text()

    # --- the process ---

    @property
    def url(self) -> str:
        """The address of all services; stays the same over a restart."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """For a process that is to reach it: this one's, with nothing of AWS but this."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {**kept, **self.settings}

    @property
    def settings(self) -> dict[str, str]:
        """The variables alone."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "no-credentials"),
            "NO_PROXY": "127.0.0.1",
        }

    def start(self) -> None:
        """Start it, at the port that it had."""
        command = [sys.executable, "-m", "tests.tracking.aws", "--folder", str(self.folder)]
        with (self._first / LOG).open("a") as log:
            process = subprocess.Popen(
                [*command, "--port", str(self._port)],
                cwd=_ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self.kill()
            raise RuntimeError(self.log())
        self._port = json.loads(line)["port"]

    def kill(self) -> None:
        """SIGKILL. What was written stays, but for what moto has (S3)."""
        self.end(signal.SIGKILL)

    def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        """End it, where it runs."""
        if self._process is not None:
            assert self._process.stdout is not None
            with self._process.stdout:
                self._process.send_signal(by)
                self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again, at the same address."""
        self.kill()
        self.start()

    # --- what happens to calls, and what has been called ---

    def fault(self, kind: Kind, **options: Any) -> None:
        """Order a fault: see :class:`tests.tracking.aws.faults.Fault` for the options."""
        self._control("faults", {"kind": kind, **options})

    def release(self) -> None:
        """End what hangs: those connections close, without an answer."""
        self._control("release", None)

    def policy(self, statements: Statements | None) -> None:
        """Allow access keys what these statements of an IAM policy allow; None: everything."""
        self._control("policy", statements)

    def reset(self) -> None:
        """No faults, no calls in the record; the data stays."""
        self._control("reset", None)

    def calls(self, *operations: str) -> list[dict[str, Any]]:
        """The calls so far, or those of some operations, in the order in which they came.

        Each has operation, service, actions (of IAM), resources (ARNs), names, account, access_key,
        region, time, status (None: no answer), error and fault.
        """
        with urllib.request.urlopen(f"{self.url}/_control/calls") as answer:  # noqa: S310
            calls = json.load(answer)
        return [call for call in calls if not operations or call["operation"] in operations]

    def _control(self, what: str, given: object) -> None:
        body = json.dumps(given).encode()
        request = urllib.request.Request(f"{self.url}/_control/{what}", body, method="POST")  # noqa: S310
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - the test's own service
            assert answer.status == 200

    # --- accounts, and what is kept ---

    def assume(self, account: str, role: str = "agent") -> dict[str, str]:
        """The environment of a process with a role of another account."""
        import boto3

        sts = boto3.client(
            "sts",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key="secret",
        )
        with closing(sts):
            arn = f"arn:aws:iam::{account}:role/{role}"
            given = sts.assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        return {
            **self.environment,
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
        }

    def components(self, account: str = ACCOUNT, region: str = REGION) -> dict[str, dict[str, Any]]:
        """All trial components by name: what DescribeTrialComponent shows, Tags and Trials."""
        with closing(Store(self.folder)) as store, store.data(account, region) as data:
            return {
                one["TrialComponentName"]: {
                    **one,
                    "Tags": data.tags(one["TrialComponentArn"]),
                    "Trials": data.trials_with(one["TrialComponentName"]),
                }
                for one in data.entities(COMPONENT)
            }

    def component(
        self, name: str, account: str = ACCOUNT, region: str = REGION
    ) -> dict[str, Any] | None:
        """One of them."""
        return self.components(account, region).get(name)

    def parameters(self, name: str) -> Mapping[str, str | float]:
        """The parameters of a component, as plain values."""
        body = self.components()[name]
        return {key: next(iter(one.values())) for key, one in body.get("Parameters", {}).items()}

    def points(self, name: str, account: str = ACCOUNT, region: str = REGION) -> list[Point]:
        """The points of a component's metrics, in the order in which they came."""
        with closing(Store(self.folder)) as store, store.data(account, region) as data:
            return data.points(name)


@pytest.fixture(scope="session")
def experiments_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExperimentsService]:
    """The process, which takes long to start: the tests have it one after another."""
    service = ExperimentsService(tmp_path_factory.mktemp("aws"))
    yield service
    service.kill()


@pytest.fixture
def experiments_service(
    experiments_process: ExperimentsService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ExperimentsService]:
    """A service of this test alone."""
    ordinary_chain(monkeypatch, tmp_path)
    service = experiments_process
    service.begin(tmp_path / "aws")
    for name, value in service.settings.items():
        monkeypatch.setenv(name, value)
    before = len(service.log())
    yield service
    log = service.log()[before:]
    assert "Traceback" not in log, log
