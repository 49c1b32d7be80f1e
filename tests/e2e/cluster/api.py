"""The API server, called by the node's own programs."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Any

from .paths import API_SERVER_IP, API_SERVER_PORT, NODE_PKI
from .pki import ADMIN

PATCH_TYPE = "application/merge-patch+json"


@contextmanager
def call(
    method: str, path: str, change: Any = None, seconds: float | None = 30.0
) -> Iterator[HTTPResponse]:
    """Call it as the administrator; gives the answer. Raises OSError if it is not a good one."""
    context = ssl.create_default_context(cafile=NODE_PKI / "ca.crt")
    context.load_cert_chain(NODE_PKI / f"{ADMIN}.crt", NODE_PKI / f"{ADMIN}.key")
    connection = HTTPSConnection(API_SERVER_IP, API_SERVER_PORT, timeout=seconds, context=context)
    body = None if change is None else json.dumps(change)
    try:
        connection.request(method, path, body, {"Content-Type": PATCH_TYPE} if body else {})
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{method} {path}: {answer.status} {answer.reason}")
        yield answer
    except HTTPException as error:
        raise OSError(f"{method} {path}: {error!r}") from error
    finally:
        connection.close()
