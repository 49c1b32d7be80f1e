"""The aggregator's end: a gRPC server that silos dial."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from fl_core.errors import TransportError
from fl_core.transport import channel
from fl_core.transport.channel import Event, Joined, Left, Received
from fl_core.transport.frames import Assembler, Frame, chunks, run_tag
from fl_core.transport.identity import Identity, silo_of

_log = logging.getLogger(__name__)


class _Stream:
    """One silo's stream."""

    _numbers = itertools.count(1)

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.context = context
        self.outgoing: queue.SimpleQueue[Iterator[bytes] | None] = queue.SimpleQueue()
        """Frames, each as its chunks; None ends the stream."""
        self.number = next(self._numbers)


class Server:
    """Accepts one stream from each of the run's silos, known by certificate.

    ``on_event`` is called from gRPC's threads with Joined, Received and Left.
    """

    def __init__(
        self,
        identity: Identity,
        federation: str,
        silos: Collection[str],
        run_id: str,
        max_state_bytes: int,
        on_event: Callable[[Event], None],
    ) -> None:
        self._federation = federation
        self._silos = frozenset(silos)
        self._tag = run_tag(run_id)
        self._max_state_bytes = max_state_bytes
        self._on_event = on_event
        self._streams: dict[str, _Stream] = {}
        channel.require_tls13()
        self._lock = threading.Lock()
        self._credentials = grpc.ssl_server_credentials(
            [(identity.key, identity.certificate)],
            root_certificates=identity.authority,
            require_client_auth=True,
        )
        handler = grpc.method_handlers_generic_handler(
            channel.SERVICE, {channel.METHOD: grpc.stream_stream_rpc_method_handler(self._serve)}
        )
        # A stream holds a thread for as long as it stands; a silo that comes back needs a second
        # one until its old stream has ended.
        self._server = grpc.server(
            ThreadPoolExecutor(2 * len(self._silos) + 2, thread_name_prefix="stream"),
            handlers=[handler],
            options=[*channel.OPTIONS, ("grpc.so_reuseport", 0)],
        )

    def start(self, host: str, port: int) -> int:
        """Listen on ``host``; port 0 takes a free one. Gives the port.

        Raises TransportError when the port is taken.
        """
        try:
            bound = self._server.add_secure_port(f"{host}:{port}", self._credentials)
        except RuntimeError as error:
            raise TransportError(
                f"cannot listen on {host}:{port}: {error}".splitlines()[0],
                "another program holds the port: choose another with --port, or leave it out",
            ) from error
        self._server.start()
        return bound

    def send(self, silo: str, frame: Frame) -> None:
        """Queue a frame; without a stream to the silo it is dropped: rejoining asks again.

        Raises TransportError when the frame's meta is too large.
        """
        with self._lock:
            stream = self._streams.get(silo)
        if stream is not None:
            stream.outgoing.put(chunks(frame, self._tag))

    def stop(self, grace: float) -> None:
        """Stop accepting, end streams once what was queued is sent, or after ``grace`` seconds."""
        stopped = self._server.stop(grace)
        with self._lock:
            streams = list(self._streams.values())
        for stream in streams:
            stream.outgoing.put(None)
        stopped.wait()

    def _serve(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        silo = self._authenticate(context)
        stream = _Stream(context)
        with self._lock:
            old = self._streams.get(silo)
            self._streams[silo] = stream
        if old is not None:
            old.context.set_code(grpc.StatusCode.ABORTED)
            old.context.set_details("another process has taken this silo's place")
            old.outgoing.put(None)
        context.add_callback(lambda: stream.outgoing.put(None))
        context.send_initial_metadata(())
        threading.Thread(
            target=self._read, args=(silo, stream, requests), name=f"read-{silo}", daemon=True
        ).start()
        while (frame := stream.outgoing.get()) is not None:
            yield from frame

    def _authenticate(self, context: grpc.ServicerContext) -> str:
        names: Any = context.auth_context().get("x509_subject_alternative_name", ())
        uris = [name.decode() for name in names if name.startswith(b"spiffe://")]
        silo = silo_of(uris, self._federation)
        if silo is None or silo not in self._silos:
            _log.warning("refused a stream: %s is no silo of this run", uris or "no SPIFFE URI")
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED, "this certificate is no silo of the run"
            )
            raise AssertionError  # abort raises
        return silo

    def _read(self, silo: str, stream: _Stream, requests: Iterator[bytes]) -> None:
        self._on_event(Joined(silo, stream.number))
        assembler = Assembler(self._tag, self._max_state_bytes)
        left = Left(silo, "stream ended", stream=stream.number)
        try:
            for chunk in requests:
                frame = assembler.feed(chunk)
                if frame is not None:
                    self._on_event(Received(silo, frame))
        except TransportError as error:
            left = Left(silo, error.message, refused=True, stream=stream.number)
            stream.context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            stream.context.set_details(error.message)
        except grpc.RpcError as error:
            reason = channel.printable(str(error)) or type(error).__name__
            left = Left(silo, reason, stream=stream.number)
        except Exception as error:  # noqa: BLE001 - a thread's last resort: its end must be told
            _log.exception("stream of silo %s", silo)
            left = Left(silo, type(error).__name__, refused=True, stream=stream.number)
        stream.outgoing.put(None)
        with self._lock:
            current = self._streams.get(silo) is stream
            if current:
                del self._streams[silo]
        if current:
            self._on_event(left)
