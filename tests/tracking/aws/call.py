"""One call: which operation of which service, by whom, on what."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from tests.tracking.aws import limits, search
from tests.tracking.aws.operations import NAMES, OPERATIONS

_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
_METRICS = {("PUT", "/BatchPutMetrics"), ("POST", "/BatchGetMetrics")}
"""The operations of SageMaker Metrics, which are told by their path."""
_HEADER = "header "
"""What marks a header among what an operation of S3 needs."""
_S3_ACTIONS = {
    "CompleteMultipartUpload": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "UploadPart": "PutObject",
}
"""What IAM calls the operations of S3 that it calls otherwise."""


@dataclass(frozen=True)
class Call:
    """What a request asks for."""

    service: str
    """As the request is signed, such as ``sagemaker``; empty where it is not signed."""
    operation: str
    key: str
    """The access key's id; empty where the request is not signed."""
    region: str
    given: dict[str, Any] | None = None
    """The request's members where Experiments answer it; None for what moto answers."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What it names, such as TrialComponentName, Bucket and Key."""
    broken: str = ""
    """Why the body is no request."""

    @property
    def actions(self) -> list[str]:
        """Those of IAM that it needs."""
        if self.service == "s3":
            return [f"s3:{_S3_ACTIONS.get(self.operation, self.operation)}"]
        actions = [f"{self.service}:{self.operation}"]
        if self.operation.startswith("Create") and self.given and self.given.get("Tags"):
            actions.append("sagemaker:AddTags")
        return actions

    def resources(self, account: str) -> list[str]:
        """The ARNs that the actions are on, ``*`` for those on no one resource."""
        given = self.given or {}
        found: list[str] = []
        if bucket := self.names.get("Bucket"):
            key = self.names.get("Key")
            found = [f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}"]
        elif self.operation == "BatchGetMetrics":
            found = [str(query.get("ResourceArn")) for query in given.get("MetricQueries", ())]
        elif "ResourceArn" in given:
            found = [str(given["ResourceArn"])]
        elif self.given is not None and not self.operation.startswith(("List", "Search")):
            start = f"arn:aws:sagemaker:{self.region}:{account}"
            for kind, member in NAMES.items():
                if name := self.names.get(member):
                    known = name.startswith("arn:")
                    found.append(name if known else f"{start}:{kind}/{name.lower()}")
            found += [str(given[end]) for end in ("SourceArn", "DestinationArn") if end in given]
        return found or ["*"]

    def needs(self, account: str) -> list[tuple[str, str]]:
        """Which action on which resource: tags are of what the call creates, the last one."""
        first, *tagging = self.actions
        resources = self.resources(account)
        return [
            *((first, one) for one in resources),
            *((action, resources[-1]) for action in tagging),
        ]


def read(environ: Mapping[str, Any], body: bytes) -> Call:
    """The call that a WSGI request is."""
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    signed = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    key, region, service = signed.groups() if signed else ("", "", "")
    by = {"key": key, "region": region, "service": service}
    target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    if service == "sagemaker" and (target in OPERATIONS or (method, path) in _METRICS):
        operation = target or path[1:]
        try:
            given = json.loads(body or b"{}", parse_constant=_refuse)
        except ValueError as error:
            return Call(operation=operation, given={}, broken=str(error), **by)
        if not isinstance(given, dict):
            return Call(operation=operation, given={}, broken="no object", **by)
        if operation != "Search" or given.get("Resource") in search.RESOURCES:
            named = {name: given.get(name) for name in [*NAMES.values(), "ResourceArn"]}
            names = {name: value for name, value in named.items() if isinstance(value, str)}
            return Call(operation=operation, given=given, names=names, **by)
    if target:
        return Call(operation=target, **by)
    if service == "s3":
        bucket, _, item = path.strip("/").partition("/")
        names = {key: value for key, value in (("Bucket", bucket), ("Key", item)) if value}
        return Call(operation=_s3_operation(environ, names), names=names, **by)
    form = parse_qs(body.decode(errors="replace")) if len(body) < 100_000 else {}
    action = form.get("Action") or [f"{method} {path}"]
    return Call(operation=action[0], **by)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _s3_operation(environ: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The operation of S3 whose address in the model says most of what the request has."""
    method = environ["REQUEST_METHOD"]
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    asked = {key: values[0] for key, values in query.items()}
    asked |= {_HEADER + key[5:].replace("_", "-").lower(): "" for key in environ if "HTTP_" in key}
    best, most = f"{method} {'/'.join(names)}", -1
    for name, needed in _s3_addresses().get((method, len(names)), ()):
        fits = all(key in asked and value in ("", asked[key]) for key, value in needed.items())
        if fits and len(needed) > most:
            best, most = name, len(needed)
    return best


@cache
def _s3_addresses() -> dict[tuple[str, int], list[tuple[str, dict[str, str]]]]:
    """Operations, and what their query and headers must have.

    By method and number of names in the path. A value is empty where any will do.
    """
    found: dict[tuple[str, int], list[tuple[str, dict[str, str]]]] = {}
    service = limits.model("s3")
    names: Any = service.operation_names
    for name in names:
        operation = service.operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        needed = {key: value[0] for key, value in parse_qs(query, keep_blank_values=True).items()}
        shape: Any = operation.input_shape
        for member in shape.metadata.get("required", ()) if shape else ():
            where = shape.members[member].serialization
            if where.get("location") == "querystring":
                needed[where["name"]] = ""
            elif where.get("location") == "header":
                needed[_HEADER + where["name"].lower()] = ""
        needed.pop("x-id", None)
        found.setdefault((operation.http["method"], path.count("{")), []).append((name, needed))
    return found
