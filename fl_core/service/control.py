"""What coordinator, agents and operators say to each other, beside the runs' own streams.

Every message is a frame whose state is one JSON object, or bytes of a file.
"""

from __future__ import annotations

import json
from typing import Any

from fl_core.errors import TransportError
from fl_core.transport.frames import Frame, run_tag

STREAM = "control"
"""Stands in frames where those of a run have its id."""
TAG = run_tag(STREAM)
MAX_BYTES = 4 * 1024 * 1024
"""Of a message. A run file has at most 1 MiB, and may bring its schema along."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Of what answers an operator: many runs of many silos."""

HELLO, ENDED = 1, 2
"""An agent's: what it offers and which runs it takes part in; that a role of it has ended."""
START, STOP = 3, 4
"""The coordinator's: take part in a run; take no more part in it."""

SUBMIT, STATUS, LOGS, STOP_RUN, FETCH, REMOVE, READMIT = 16, 17, 18, 19, 20, 21, 22
"""An operator's requests."""
ANSWER, PART, ERROR = 32, 33, 34
"""What answers them: an object, a part of a file or log, the error that ends it."""

PART_BYTES = 512 * 1024


def message(kind: int, body: dict[str, Any]) -> Frame:
    """The frame that carries ``body``. Raises TransportError when it is too large."""
    encoded = json.dumps(body, separators=(",", ":")).encode()
    limit = MAX_ANSWER_BYTES if kind == ANSWER else MAX_BYTES
    if len(encoded) > limit:
        raise TransportError(
            f"message of {len(encoded)} bytes", f"it may have {limit}: a shorter run file"
        )
    return Frame(kind, state=encoded)


def body(frame: Frame) -> dict[str, Any]:
    """The object that a frame carries. Raises TransportError when it is none."""
    try:
        found = json.loads(bytes(frame.state))
    except (ValueError, RecursionError) as error:
        raise TransportError("a message is not JSON", "both ends must run the same version") from (
            error
        )
    if not isinstance(found, dict):
        raise TransportError("a message is no JSON object", "both ends must run the same version")
    return found
