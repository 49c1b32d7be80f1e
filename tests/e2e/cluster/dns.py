"""Asks a name service for an address: ``python3 -m tests.e2e.cluster.dns SERVER NAME``.

Python's own look-up asks only the servers that the machine is set up with.
"""

from __future__ import annotations

import secrets
import socket
import struct
import sys

TIMEOUT_SECONDS = 2.0
PORT = 53


def resolves(server: str, name: str) -> bool:
    """Whether the server gives at least one address for a name. Raises OSError if it is silent."""
    query_id = secrets.randbits(16)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    # One question, recursion wanted; type A, class IN.
    query = struct.pack(">6H", query_id, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT_SECONDS)
        client.connect((server, PORT))
        client.send(query)
        answer = client.recv(512)
    answer_id, flags, _questions, answers = struct.unpack(">4H", answer[:8])
    return answer_id == query_id and flags & 0xF == 0 and answers > 0


if __name__ == "__main__":
    sys.exit(0 if resolves(sys.argv[1], sys.argv[2]) else 1)
