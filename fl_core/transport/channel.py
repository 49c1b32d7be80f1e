"""What both ends of a stream share: the method's name, gRPC's options, events."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from fl_core import GRPC_CAME_FIRST, TLS13_ONLY
from fl_core.errors import TransportError
from fl_core.transport.frames import MAX_CHUNK, Frame
from fl_core.transport.places import Place

SERVICE = "fl_core.Federation"
STREAM, CALL = "Stream", "Call"
"""The methods: a silo's stream, and an operator's call."""


def path(method: str) -> str:
    """gRPC's name for a method."""
    return f"/{SERVICE}/{method}"


HEARTBEAT_SECONDS = 20
"""HTTP/2 pings, answered below Python, so that a long fit does not look like a lost silo."""

HANDSHAKE_SECONDS = 10
"""How long a stranger may take for the handshake; until its end it holds a file descriptor."""


def options(heartbeat: float = HEARTBEAT_SECONDS) -> list[tuple[str, int]]:
    """gRPC's options of both ends. It passes over names that it does not know: a test knows them.

    Their names are those of grpc_types.h and impl/channel_arg_names.h, in gRPC's source.
    """
    return [
        ("grpc.max_receive_message_length", MAX_CHUNK),
        ("grpc.max_send_message_length", MAX_CHUNK),
        # What a peer may have under way that is not read yet, else as much as the link carries:
        # at least 10 MB/s over 100 ms, and memory for the streams that wait for their place.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", MAX_CHUNK),
        ("grpc.max_metadata_size", 8 * 1024),
        ("grpc.keepalive_time_ms", int(heartbeat * 1000)),
        ("grpc.keepalive_timeout_ms", int(heartbeat * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", int(heartbeat * 500)),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.enable_http_proxy", 0),
    ]


OPTIONS = options()


STOP_SECONDS = 10.0
"""How long a closing end waits for what is queued to be taken."""


def require_tls13() -> None:
    """Raise TransportError when gRPC was imported before it was told to speak TLS 1.3 only."""
    if os.environ.get("GRPC_SSL_CIPHER_SUITES") != TLS13_ONLY or GRPC_CAME_FIRST:
        raise TransportError(
            "gRPC was imported before fl_core, and would speak TLS 1.2 as well",
            "import fl_core before grpc in this program, and leave GRPC_SSL_CIPHER_SUITES alone",
        )


def printable(text: str | None) -> str:
    """Text that came from the other end, fit for a log or a terminal: escaped, and cut."""
    return (text or "").encode("unicode_escape").decode("ascii")[:200]


@dataclass(frozen=True)
class Joined:
    """A stream with ``peer`` (a silo's name; the aggregator at a silo) has been opened."""

    peer: str
    stream: int = field(default=0, compare=False)
    """Which of the peer's streams it is."""
    fingerprint: str = field(default="", compare=False)
    """SHA-256 of the certificate that the peer has shown; empty at a silo."""


@dataclass(frozen=True)
class Received:
    """A whole frame has come from ``peer``."""

    peer: str
    frame: Frame
    stream: int = field(default=0, compare=False)
    """On which of the peer's streams."""
    place: Place | None = field(default=None, compare=False)
    """The room that a large frame has at the aggregator, until it has been handled."""


@dataclass(frozen=True)
class Left:
    """The stream with ``peer`` has ended. ``refused``: it broke the rules, or we did."""

    peer: str
    reason: str
    refused: bool = False
    stream: int = field(default=0, compare=False)
    """Which stream has ended; one that another has replaced is of no interest."""


Event = Joined | Received | Left
