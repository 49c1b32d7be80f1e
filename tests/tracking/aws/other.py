"""Everything but Experiments: moto, which is imported when first asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from tests.tracking.aws.errors import Answer

_Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Moto:
    """moto's application."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._app: _Wsgi | None = None

    def answer(self, environ: dict[str, Any], body: bytes) -> Answer:
        """What moto says to a request whose body has been read."""
        with self._lock:
            app = self._app = self._app or _application()
        request = {**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        request.pop("HTTP_TRANSFER_ENCODING", None)
        started: list[tuple[int, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], _: object = None) -> None:
            started.append((int(status.split()[0]), headers))

        parts = app(request, start)
        try:
            content = b"".join(parts)
        finally:
            if close := getattr(parts, "close", None):
                close()
        return (*started[-1], content)

    def forget(self) -> None:
        """Everything that moto has, where it has been asked for anything."""
        with self._lock:
            if self._app is not None:
                from moto.core.base_backend import BackendDict

                BackendDict.reset()

    def keys(self) -> dict[str, str]:
        """The accounts of the temporary keys that its STS has given."""
        from moto.iam.models import iam_backends

        return {
            key: account
            for account, partitions in list(iam_backends.items())
            for backend in list(partitions.values())
            for key in list(backend.access_keys)
        }


def _application() -> _Wsgi:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)
