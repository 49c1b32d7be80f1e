"""Ports on loopback."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
