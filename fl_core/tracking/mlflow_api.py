"""MLflow's REST API (https://mlflow.org/docs/latest/rest-api.html), as far as runs need it.

MLflow's own package cannot be installed beside FedML. What SageMaker's managed MLflow wants on top
of the API, an address and a signature, is as the package sagemaker-mlflow has it.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
import re
import ssl
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import BaseModel, ValidationError

from fl_core.tracking import retry_after
from fl_core.tracking.contract import Refused, Unavailable

CONNECT_SECONDS, READ_SECONDS = 3.0, 5.0
STORE_SECONDS = 60.0
"""How long the answer to a file may take: MLflow first hands the file on to its own store."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
ANSWER_SECONDS = 15.0
CHUNK_BYTES = 64 * 1024

ADDRESS = re.compile(
    r"https?://([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[\w.~%/-]*)?", re.A
)
"""Of a server, as a user gives it."""
ARN = re.compile(
    r"arn:(aws|aws-us-gov):sagemaker:([a-z0-9-]+):\d{12}:"
    r"(mlflow-tracking-server|mlflow-app)/[A-Za-z0-9-]+"
)
"""Of a managed one: partition, region, kind."""
_USER, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105 - a name
CREDENTIALS = f"set {_TOKEN}, or {_USER} and {_PASSWORD}, in the environment of who delivers"
"""What to do where a server does not know who asks."""
ABSENT, PRESENT = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
"""Codes of MLflow's refusals."""

_API = "api/2.0/mlflow"
_ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"
# The address, the service that a signature is for, and the header with the ARN.
_MANAGED = {
    "mlflow-tracking-server": (
        "https://{}.experiments.sagemaker.aws",
        "sagemaker-mlflow",
        "x-mlflow-sm-tracking-server-arn",
    ),
    "mlflow-app": ("https://mlflow.sagemaker.{}.app.aws", "sagemaker", "x-sm-mlflow-app-arn"),
}
_ENDPOINT = "SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT"
_AUTHORITY = "MLFLOW_TRACKING_SERVER_CERT_PATH"
_ADDRESS_REMEDY = "correct url in --track mlflow:url=..."
_Body = TypeVar("_Body", bound=BaseModel)

# What MLflow answers, as far as it is read.


class Nothing(BaseModel):
    """An answer of which nothing is needed."""


class _Pair(BaseModel):
    key: str
    value: str = ""


class _Experiment(BaseModel):
    experiment_id: str
    lifecycle_stage: str = "active"


class ExperimentAnswer(BaseModel):
    experiment: _Experiment


class Created(BaseModel):
    experiment_id: str


class _RunInfo(BaseModel):
    run_id: str
    status: str = ""
    artifact_uri: str = ""


class _RunData(BaseModel):
    params: list[_Pair] = []
    tags: list[_Pair] = []


class Run(BaseModel):
    info: _RunInfo
    data: _RunData = _RunData()


class RunAnswer(BaseModel):
    run: Run


class Runs(BaseModel):
    runs: list[Run] = []


class _Metric(BaseModel):
    step: int = 0


class History(BaseModel):
    metrics: list[_Metric] = []
    next_page_token: str = ""


class _Complaint(BaseModel):
    error_code: str
    message: str = ""


class Answered(Refused):
    """MLflow's own refusal, with its code, such as RESOURCE_DOES_NOT_EXIST."""

    def __init__(self, message: str, remedy: str, code: str) -> None:
        super().__init__(message, remedy)
        self.code = code


class Api:
    """One MLflow over HTTP. Raises Unavailable and Refused; threads may share it."""

    def __init__(self, url: str) -> None:
        try:
            import urllib3
        except ImportError as error:
            raise Refused(
                "the tracker mlflow needs urllib3, which is not installed",
                "pip install 'fl-core[mlflow]'",
            ) from error
        self._headers = {"Accept": "application/json"}
        self._signature = self._authorization = ""
        self._region = ""
        if managed := ARN.fullmatch(url):
            self._region = managed[2]
            base, self._signature, header = _MANAGED[managed[3]]
            self.base = os.environ.get(_ENDPOINT, "").rstrip("/") or base.format(self._region)
            if not ADDRESS.fullmatch(self.base):
                raise Refused(
                    f"{_ENDPOINT} is no address of a server",
                    "make it http(s)://HOST[:PORT][/PATH], or unset it",
                )
            self._headers[header] = url
            self._denied = f"allow the AWS identity of who delivers {self._signature}:* on {url}"
        else:
            self.base = url
            self._authorization = _authorization()
            self._denied = f"{CREDENTIALS}: those of a user who may edit the experiment"
        self._secret = bool(self._signature or self._authorization)
        if self.base.startswith("http:") and self._secret and not _is_loopback(self.base):
            raise Refused(
                f"{self.base}: over http, anyone on the way could read the credentials",
                f"use https, or unset {_TOKEN}, {_USER} and {_PASSWORD}",
            )
        self._pool = urllib3.PoolManager(
            maxsize=64,  # threads that may use it at once without a connection made for one call
            retries=False,
            ssl_context=_trust() if self.base.startswith("https:") else None,
        )

    def get(self, body: type[_Body], path: str, **query: Any) -> _Body:
        """What MLflow answers to a question."""
        text = urlencode(query, quote_via=quote)
        return self._parsed(body, *self._send("GET", f"{_API}/{path}?{text}"))

    def post(self, body: type[_Body], path: str, **fields: Any) -> _Body:
        """What MLflow answers to a JSON object."""
        data = json.dumps(fields, allow_nan=False).encode()
        headers = {"Content-Type": "application/json"}
        return self._parsed(body, *self._send("POST", f"{_API}/{path}", data, headers))

    def put_file(self, path: str, file: Path) -> None:
        """Send a file, a piece at a time."""
        try:
            with file.open("rb") as opened:
                headers = {
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(os.fstat(opened.fileno()).st_size),
                }
                status, data = self._send(
                    "PUT", f"{_ARTIFACTS}/{path}", opened, headers, STORE_SECONDS
                )
        except OSError as error:
            raise Refused(f"{file}: {error.strerror}", "see that the file can be read") from error
        self._parsed(Nothing, status, data or b"{}")

    def version(self) -> tuple[int, int] | None:
        """MLflow's version, where it tells it: what stands before MLflow may keep it back."""
        try:
            status, data = self._send("GET", "version")
        except Refused:
            return None
        found = re.match(rb"(\d{1,4})\.(\d{1,4})\.", data)
        return (int(found[1]), int(found[2])) if status == 200 and found else None

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | IO[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of an answer that is MLflow's own. Raises for all others."""
        import urllib3
        from urllib3.exceptions import HTTPError, LocationValueError, SSLError

        url = f"{self.base}/{path}"
        sent = {**self._headers, **(headers or {})}
        if self._signature:
            sent = self._signed(method, url, sent, body)
        elif self._authorization:
            sent["Authorization"] = self._authorization
        try:
            answer = self._pool.request(
                method,
                url,
                body=body or None,
                headers=sent,
                redirect=False,
                timeout=urllib3.Timeout(
                    connect=CONNECT_SECONDS, read=READ_SECONDS if seconds is None else seconds
                ),
                preload_content=False,
            )
            with answer:
                data = self._read(answer)
        except SSLError as error:
            raise self._no_tls(error) from error
        except LocationValueError as error:
            raise Refused(f"{self.base} is no address of a server", _ADDRESS_REMEDY) from error
        except HTTPError as error:
            raise Unavailable(f"{self.base} {_reason(error)}", "see that MLflow runs") from error
        self._judge(answer.status, answer.headers, data, sent)
        return answer.status, data

    def _read(self, answer: Any) -> bytes:
        """The answer's body; Refused where there is too much of it, or too slowly."""
        deadline = time.monotonic() + ANSWER_SECONDS
        data = bytearray()
        while chunk := answer.read1(CHUNK_BYTES, decode_content=False):
            data += chunk
            if len(data) > MAX_ANSWER_BYTES:
                raise self._stranger(f"more than {MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self.base}: an answer took over {ANSWER_SECONDS:g} s", "see that MLflow runs"
                )
        return bytes(data)

    def _judge(
        self, status: int, headers: Mapping[str, str], data: bytes, sent: Mapping[str, str]
    ) -> None:
        """Raise for an answer that MLflow did not give, or cannot give yet."""
        if 300 <= status < 400:
            # Not followed: the credentials are for this server alone.
            target = urlsplit(headers.get("Location", ""))
            raise Refused(
                f"{self.base} sends on to {f'{target.scheme}://{target.hostname}'!r:.200}",
                f"give MLflow's own address; {_ADDRESS_REMEDY}",
            )
        if status in (401, 403):
            said = self._said(data, sent)
            raise Refused(f"{self.base} answers {status}{said}", self._denied)
        if status in (408, 425, 429) or status >= 500:
            said = self._said(data, sent)
            after = retry_after.seconds(headers.get("Retry-After", ""))
            raise Unavailable(f"{self.base} answers {status}{said}", "see MLflow's log", after)

    def _said(self, data: bytes, sent: Mapping[str, str]) -> str:
        """What an answer says, without what is secret in the request: some servers repeat that."""
        text = data[:CHUNK_BYTES].decode(errors="replace")
        try:
            text = _Complaint.model_validate_json(data).message
        except ValidationError:
            if text.lstrip()[:1] in ("<", ""):  # a page for people
                return ""
        whole = sent.get("Authorization", "")
        secrets = [whole, whole.partition(" ")[2], sent.get("X-Amz-Security-Token", "")]
        secrets += [] if self._signature else [os.environ.get(_PASSWORD, "")]
        for secret in secrets:
            text = text.replace(secret, "***") if secret else text
        return f": {' '.join(text.split())[:300]}"

    def _parsed(self, body: type[_Body], status: int, data: bytes) -> _Body:
        if status < 300:
            try:
                return body.model_validate_json(data)
            except ValidationError as error:
                raise self._stranger("something else than MLflow does") from error
        try:
            complaint = _Complaint.model_validate_json(data)
        except ValidationError as error:
            raise self._stranger(str(status)) from error
        text = " ".join(complaint.message.split())[:500]
        raise Answered(
            f"{self.base} answers {status}: {text}",
            "see what MLflow says; where it has deleted the run or the experiment, choose another "
            "prefix: --track mlflow:prefix=PREFIX,...",
            complaint.error_code,
        )

    def _stranger(self, answer: str) -> Refused:
        return Refused(f"{self.base} is no MLflow: it answers {answer}", _ADDRESS_REMEDY)

    def _no_tls(self, error: Exception) -> Refused | Unavailable:
        cause = error.args[0] if error.args else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Refused(
                f"{self.base}: its certificate is not trusted: {cause.verify_message}",
                f"name its authority's certificate in {_AUTHORITY}, or correct the url",
            )
        if getattr(cause, "reason", "") in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return Refused(f"{self.base} does not speak TLS", _ADDRESS_REMEDY)
        return Unavailable(f"{self.base}: no TLS connection: {cause}", "see that MLflow runs")

    # Signatures, for a managed MLflow

    @cached_property
    def _identity(self) -> Any:
        """AWS credentials that are renewed when it is time."""
        remedy = (
            "give who delivers credentials of the ordinary AWS chain: its pod's role, "
            "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
        try:
            import botocore.session
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise Refused(
                "managed MLflow needs boto3, which is not installed",
                "pip install 'fl-core[mlflow,sagemaker]'",
            ) from error
        try:
            found = botocore.session.Session().get_credentials()
        except BotoCoreError as error:
            raise Refused(f"AWS credentials: {error}", remedy) from error
        if found is None:
            raise Refused("there are no AWS credentials", remedy)
        return found

    def _signed(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | IO[bytes]
    ) -> dict[str, str]:
        """The headers with those of AWS Signature Version 4."""
        identity = self._identity
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        try:
            credentials = identity.get_frozen_credentials()
        except BotoCoreError as error:
            raise Unavailable(f"AWS credentials: {error}", "see where they come from") from error
        if isinstance(body, bytes):
            digest = hashlib.sha256(body).hexdigest()
        else:
            digest = hashlib.file_digest(body, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
            body.seek(0)
        request = AWSRequest(method, url, {**headers, "X-Amz-Content-SHA256": digest})
        SigV4Auth(credentials, self._signature, self._region).add_auth(request)
        return dict(request.headers.items())


def _authorization() -> str:
    """The header for what the environment has; empty where it has nothing. Raises Refused."""
    user, password = os.environ.get(_USER, ""), os.environ.get(_PASSWORD, "")
    if bool(user) != bool(password):
        missing = _PASSWORD if user else _USER
        raise Refused(f"{missing} is not set, and its counterpart is", f"set {_USER}, {_PASSWORD}")
    if user:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    token = os.environ.get(_TOKEN, "")
    if not re.fullmatch(r"[\x21-\x7e]*", token):
        raise Refused(
            f"{_TOKEN} holds a space, a line break or a character outside ASCII",
            "set it to the token alone",
        )
    return f"Bearer {token}" if token else ""


def _is_loopback(base: str) -> bool:
    host = urlsplit(base).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _trust() -> ssl.SSLContext:
    """The system's trust, or that in the file or folder which the environment names."""
    path = os.environ.get(_AUTHORITY, "")
    try:
        if os.path.isdir(path):
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path or None)
    except OSError as error:  # ssl.SSLError is one too
        raise Refused(
            f"{_AUTHORITY} is {path!r}: {error.strerror or error}",
            "name a file with certificates in PEM, or unset it",
        ) from error


def _reason(error: Exception) -> str:
    """Why there is no answer, without the client's own names for it."""
    from urllib3.exceptions import (
        ConnectTimeoutError,
        NameResolutionError,
        NewConnectionError,
        ReadTimeoutError,
    )

    if isinstance(error, NameResolutionError):
        return "has a host that is not known here"
    if isinstance(error, NewConnectionError):
        cause = error.__cause__
        return f"takes no connection: {getattr(cause, 'strerror', None) or 'no reason given'}"
    if isinstance(error, ConnectTimeoutError):
        return f"took no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, ReadTimeoutError):
        return "does not answer in time"
    return "broke the connection off"
