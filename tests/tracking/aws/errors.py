"""AWS's errors, in the form that each kind of service gives them."""

from __future__ import annotations

import json
from xml.sax.saxutils import escape

Answer = tuple[int, list[tuple[str, str]], bytes]
"""HTTP status, headers, body."""


class AwsError(Exception):
    """What the service answers instead."""

    def __init__(
        self, code: str, message: str, status: int = 400, retry_after: float | None = None
    ) -> None:
        super().__init__(code, message)
        self.code, self.message, self.status = code, message, status
        self.retry_after = retry_after

    def answer(self, service: str) -> Answer:
        """For a client of this service, as it signs."""
        headers = [("x-amzn-RequestId", "00000000-0000-0000-0000-000000000000")]
        if self.retry_after is not None:
            headers.append(("Retry-After", f"{self.retry_after:g}"))
        if service in ("s3", "sts", "iam"):
            inner = f"<Code>{self.code}</Code><Message>{escape(self.message)}</Message>"
            text = f"<Error>{inner}</Error>"
            if service != "s3":
                text = f"<ErrorResponse>{text}</ErrorResponse>"
            return self.status, [*headers, ("Content-Type", "application/xml")], text.encode()
        body = json.dumps({"__type": self.code, "message": self.message}).encode()
        headers += [
            ("Content-Type", "application/x-amz-json-1.1"),
            ("x-amzn-ErrorType", self.code),
        ]
        return self.status, headers, body


def invalid(message: str) -> AwsError:
    """The request breaks a rule."""
    return AwsError("ValidationException", message)


def missing(what: str, name: str) -> AwsError:
    """What the request names is not there."""
    return AwsError("ResourceNotFound", f"{what} '{name}' does not exist.")
