"""An MLflow server on loopback, what its own client reads there, and servers that misbehave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / "build" / "mlflow"
READER = Path(__file__).parent / "mlflow_reader.py"
WAIT = 90

needed = pytest.mark.skipif(
    not (ENVIRONMENT / ".ready").exists(),
    reason="no MLflow server: make build/mlflow/.ready, which make test does",
)


@dataclass
class Server:
    """An MLflow server, and a process with MLflow's own client."""

    url: str
    reader: subprocess.Popen[str]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, *question: str) -> Any:
        """What a function of mlflow_reader returns."""
        assert self.reader.stdin
        assert self.reader.stdout
        with self.lock:
            self.reader.stdin.write(json.dumps(question) + "\n")
            self.reader.stdin.flush()
            return json.loads(self.reader.stdout.readline())

    def only_run(self, experiment: str) -> dict[str, Any]:
        """The one run in the experiment."""
        (run,) = self.ask("runs", experiment)
        return run


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A server of its own, with database and files in ``folder``."""
    shutil.copy(ENVIRONMENT / "empty.db", folder / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        *(str(ENVIRONMENT / "bin" / "mlflow"), "server", "--host", "127.0.0.1"),
        *("--port", str(port), "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--serve-artifacts", "--artifacts-destination", str(folder / "files")),
        "--waitress-opts=--threads=8",  # the default one imports pandas and more
    ]
    reading = [str(ENVIRONMENT / "bin" / "python"), str(READER), url]
    log = folder / "server.log"
    with (
        log.open("wb") as out,
        _process(command, folder, stdout=out, stderr=subprocess.STDOUT) as process,
        _process(
            reading,
            folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as reader,
    ):
        deadline = time.monotonic() + WAIT
        while not _is_healthy(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Server(url, reader)


@contextmanager
def _process(command: list[str], folder: Path, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process, ended with those that it has started."""
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    started = subprocess.Popen(
        command, cwd=folder, env=variables, start_new_session=True, **options
    )
    with started:
        try:
            yield started
        finally:
            os.killpg(started.pid, signal.SIGKILL)


def _is_healthy(url: str) -> bool:
    try:
        return forward(url)(Call("GET", "/health", {}, b"")).status == 200
    except OSError:
        return False


@dataclass(frozen=True)
class Call:
    """A request that a front received."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Their names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What a front says to one."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Behaviour = Callable[[Call], Answer | None]
"""None: the connection is closed without an answer."""


@dataclass
class Front:
    """A server on loopback that answers as it is told, and keeps what it was asked."""

    url: str
    behave: Behaviour
    calls: list[Call] = field(default_factory=list)

    def paths(self) -> list[str]:
        """The last part of each call's path."""
        return [call.path.partition("?")[0].partition("mlflow/")[2] for call in self.calls]


@contextmanager
def front(behave: Behaviour, context: ssl.SSLContext | None = None) -> Iterator[Front]:
    """A front, over TLS with ``context``; ``behave`` may be replaced in it."""

    class Listening(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # who asked went away, or did not trust the certificate

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, self.path, headers, body)
            told.calls.append(call)
            answer = told.behave(call)
            self.close_connection = answer is None
            if answer is None:
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            try:
                self.wfile.write(answer.body)
            except OSError:  # who asked had enough of it
                self.close_connection = True

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with Listening(("127.0.0.1", 0), Handler) as listening:
        if context is not None:
            listening.socket = context.wrap_socket(
                listening.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "http" if context is None else "https"
        told = Front(f"{scheme}://127.0.0.1:{listening.server_address[1]}", behave)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield told
        finally:
            listening.shutdown()
            thread.join()


def forward(url: str) -> Callable[[Call], Answer]:
    """Ask the server at ``url``, and say what it says."""

    def behave(call: Call) -> Answer:
        kept = {
            name: value
            for name, value in call.headers.items()
            if name not in ("host", "connection", "content-length")
        }
        with closing(HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:
            connection.request(call.method, call.path, call.body, kept)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())

    return behave
