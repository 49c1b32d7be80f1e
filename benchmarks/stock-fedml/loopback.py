"""No network but loopback. Import it before FedML, which asks its vendor for a configuration."""

from __future__ import annotations

import csv
import socket
import time
from pathlib import Path
from typing import Any

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_resolve = socket.getaddrinfo


def _loopback_only(host: Any, *args: Any, **kwargs: Any) -> Any:
    """As on a machine without a network."""
    if host not in LOOPBACK and host is not None:
        raise socket.gaierror(socket.EAI_AGAIN, f"{host}: no network in a benchmark")
    return _resolve(host, *args, **kwargs)


socket.getaddrinfo = _loopback_only


def wait_for_server(addresses: Path) -> None:
    """A FedML client dies when it comes before its server, so wait for the server's port."""
    with addresses.open(encoding="ascii", newline="") as file:
        server = next(csv.DictReader(file))
    address = server["grpc_server_ip"], int(server["grpc_server_port"])
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(address) == 0:
                return
        time.sleep(0.05)
