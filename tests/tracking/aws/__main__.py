"""Starts the service on loopback. SIGTERM ends it, as does any other signal that ends a process."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from tests.tracking.aws.app import Services


class _Quiet(WSGIRequestHandler):
    """Writes no line for a request: the record has them all."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tracking.aws")
    parser.add_argument("--folder", type=Path, required=True, help="where the database lies")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    service = Services(options.folder)
    server = ThreadedWSGIServer("127.0.0.1", options.port, service, handler=_Quiet)
    print(json.dumps({"port": server.port}), flush=True)
    sys.stdout = sys.stderr  # nobody reads what moto prints
    server.serve_forever()


main()
