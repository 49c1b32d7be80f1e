"""How a plugin runs: it prints the port it serves on, and ends with the engine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc

LARGEST_MESSAGE = 400 * 1024 * 1024  # the engine's own limit
ENGINE_CHECK = 1.0
"""Seconds between looks whether the engine still lives: one that is killed ends no plugin."""


def serve(add: Callable[[grpc.Server], None], cancel: Callable[[], None]) -> NoReturn:
    """Serve what ``add`` adds to the server, on loopback, until the engine ends this process.

    Then ``cancel`` ends what the calls under way have started.
    """
    engine = os.getppid()
    server = grpc.server(
        ThreadPoolExecutor(64),
        options=[
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.max_send_message_length", LARGEST_MESSAGE),
        ],
    )
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # The engine asks with SIGINT.
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    print(port, flush=True)
    while os.getppid() == engine and not stopped.wait(ENGINE_CHECK):
        pass
    server.stop(None)
    cancel()
    # Not by sys.exit, which would wait for the calls under way: nobody is left to hear their end.
    os._exit(0)
