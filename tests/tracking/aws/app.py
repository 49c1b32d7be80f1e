"""The WSGI application: takes each call down, lets it meet its fault, answers it.

Below ``/_control/``, in JSON: POST ``faults`` orders one (see :class:`.faults.Fault`), ``release``
ends what hangs, ``reset`` ends all faults and forgets the calls, ``policy`` takes statements by
access key, or null, ``begin`` a folder: what follows meets a new service, with its store there. GET
``calls`` lists the calls so far.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wsgi import get_input_stream

from tests.tracking.aws import limits, policy
from tests.tracking.aws.call import Call, read
from tests.tracking.aws.errors import Answer, AwsError
from tests.tracking.aws.faults import Fault, Faults, Record
from tests.tracking.aws.operations import OPERATIONS
from tests.tracking.aws.other import Moto
from tests.tracking.aws.store import Store

ACCOUNT = "123456789012"
"""That of every key that is not temporary, as in moto."""
_CONTROL = "/_control/"
_TEMPORARY = "ASIA"
"""What the ids of temporary access keys start with."""


class Services:
    """One service after another, by ``begin``."""

    def __init__(self, folder: Path) -> None:
        self._now = Service(folder)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["PATH_INFO"] == f"{_CONTROL}begin":
            folder = Path(json.loads(get_input_stream(environ).read()))
            self._now.end()
            self._now = Service(folder)
            start_response("200 OK", [])
            return [b""]
        return self._now(environ, start_response)


class Service:
    """AWS, as far as its store in ``folder`` and moto go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = Store(folder)
        self._faults, self._record, self._moto = Faults(), Record(), Moto()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        body = get_input_stream(environ).read()
        if environ["PATH_INFO"].startswith(_CONTROL):
            status, headers, content = self._control(environ, body)
        else:
            status, headers, content = self._answered(environ, body)
        start_response(f"{status} {HTTP_STATUS_CODES.get(status, '')}", headers)
        return [content]

    def end(self) -> None:
        """End what hangs, and forget what lies in moto."""
        self._faults.clear()
        self._moto.forget()

    def _control(self, environ: dict[str, Any], body: bytes) -> Answer:
        said: object = None
        match environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(_CONTROL):
            case "GET", "calls":
                said = self._record.entries()
            case "POST", "faults":
                self._faults.order(json.loads(body))
            case "POST", "release":
                self._faults.release()
            case "POST", "reset":
                self._faults.clear()
                self._record.clear()
            case "POST", "policy":
                policy.keep(self._folder, json.loads(body))
            case _:
                return 404, [], b""
        return 200, [("Content-Type", "application/json")], json.dumps(said).encode()

    def _answered(self, environ: dict[str, Any], body: bytes) -> Answer:
        call = read(environ, body)
        account = self._account(call.key)
        entry = self._record.begin(call, account or "")
        fault, released = self._faults.meets(call)
        entry.fault = fault.kind if fault else None
        try:
            if fault:
                if fault.kind == "hang":
                    released.wait()
                    _cut_off(environ)
                _suffer(fault)
            answer = self._done(call, account, environ, body, fault)
        except AwsError as error:
            entry.error = error.code
            answer = error.answer(call.service)
        if fault and fault.kind == "lost":
            _cut_off(environ)
        entry.status = answer[0]
        return answer

    def _account(self, key: str) -> str | None:
        """Whose a key is; None for a temporary one that nobody has given."""
        return self._store.account(key) if key.startswith(_TEMPORARY) else ACCOUNT

    def _done(
        self,
        call: Call,
        account: str | None,
        environ: dict[str, Any],
        body: bytes,
        fault: Fault | None,
    ) -> Answer:
        if account is None:
            raise AwsError(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
                403 if call.service in ("s3", "sts", "iam") else 400,
            )
        policy.check(self._folder, call.key, call.needs(account))
        if call.given is None:
            answer = self._moto.answer(environ, body)
            if call.service == "sts":
                self._store.keep_keys(self._moto.keys())
            return answer
        if call.region not in limits.regions():
            raise AwsError(
                "InvalidSignatureException",
                f"Credential should be scoped to a valid region, not '{call.region}'. ",
            )
        if call.broken:
            raise AwsError("SerializationException", call.broken)
        limits.check(limits.operation(call.operation).input_shape, call.given)
        given = {key: value for key, value in call.given.items() if value is not None}
        refused = fault is not None and fault.kind == "refuse-first" and "MetricData" in given
        if refused:
            given["MetricData"] = given["MetricData"][1:]
        with self._store.data(account, call.region) as data:
            said = OPERATIONS[call.operation](data, given)
        if refused:
            errors = [(0, "INTERNAL_ERROR")]
            errors += [(one["MetricIndex"] + 1, one["Code"]) for one in said.get("Errors", ())]
            said = {"Errors": [{"Code": code, "MetricIndex": index} for index, code in errors]}
        content = json.dumps(said).encode()
        return 200, [("Content-Type", "application/x-amz-json-1.1")], content


def _suffer(fault: Fault) -> None:
    """What a fault does before the call: raises AwsError, or takes its time."""
    if fault.kind == "throttle":
        raise AwsError("ThrottlingException", "Rate exceeded", 400, fault.retry_after)
    if fault.kind == "error":
        raise AwsError("InternalFailure", "An internal error.", 500, fault.retry_after)
    if fault.kind == "delay":
        time.sleep(fault.seconds)


def _cut_off(environ: dict[str, Any]) -> None:
    """Close the connection; the server drops the request."""
    with suppress(OSError):  # who asked was faster
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("as the test ordered")
