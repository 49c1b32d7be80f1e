"""The two questions that whoever watches a service asks, over HTTP: healthy? ready?"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from fl_core.errors import ServiceError
from fl_core.service.loop import Loop

_log = logging.getLogger(__name__)
LONGEST_SILENCE_SECONDS = 60.0
"""Since the service's loop has last turned, before it counts as stuck."""
_Check = Callable[[], str]


class Health:
    """Answers GET /healthy and GET /ready with 200, or with 503 and the reason."""

    def __init__(self, address: tuple[str, int], loop: Loop, not_ready: _Check) -> None:
        """``not_ready`` says what is missing, or nothing. Raises ServiceError: the port is taken.

        Port 0 takes a free one; :attr:`port` says which.
        """
        self._loop = loop
        checks = {"/healthy": self._not_healthy, "/ready": not_ready}
        try:
            self._server = _Server(address, _handler(checks))
        except (OSError, UnicodeError, TypeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ServiceError(
                f"cannot listen on {address[0]}:{address[1]}: {reason}",
                "choose another address for --health",
            ) from error
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def _not_healthy(self) -> str:
        silence = time.monotonic() - self._loop.last_turn
        return f"stuck for {silence:.0f} s" if silence > LONGEST_SILENCE_SECONDS else ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        host, port = address
        if host.startswith("["):
            host, self.address_family = host.strip("[]"), socket.AF_INET6
        super().__init__((host, port), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        _log.debug("a caller of the health port broke off", exc_info=True)

    def server_bind(self) -> None:
        # The base class looks up its own name, for which a locked-down network may have no answer.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "health", self.server_address[1]


def _handler(checks: dict[str, _Check]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # a caller that says nothing holds a thread for no longer
        server_version, sys_version = "fl", ""

        def do_GET(self) -> None:
            check = checks.get(self.path)
            if check is None:
                self._answer(404, f"ask for {' or '.join(checks)}")
            elif reason := check():
                self._answer(503, reason)
            else:
                self._answer(200, self.path.removeprefix("/"))

        def _answer(self, status: int, text: str) -> None:
            data = f"{text}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            _log.debug(format, *args)

    return Handler
