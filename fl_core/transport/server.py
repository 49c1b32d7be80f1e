"""The aggregator's end: a gRPC server that silos dial, and operators call."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn

import grpc

from fl_core.errors import TransportError
from fl_core.transport import channel
from fl_core.transport.channel import Event, Joined, Left, Received
from fl_core.transport.frames import Assembler, Frame, chunks, run_tag
from fl_core.transport.identity import Identity, Party, fingerprint, party_of
from fl_core.transport.memory import share_freed_memory
from fl_core.transport.outbox import Outbox
from fl_core.transport.places import CHUNK_SECONDS, Place, Places, StreamEnded

_log = logging.getLogger(__name__)

Answer = Callable[[Party, Frame, Callable[[], bool]], Iterator[Frame]]
"""Answers an operator's call, until the function given to it says that the caller is gone."""


MAX_CALLS = 32
"""Operators' calls at once; each holds a thread."""


class _Stream:
    """One silo's stream."""

    _numbers = itertools.count(1)

    def __init__(self, context: grpc.ServicerContext, certificate: str, tag: bytes) -> None:
        self.context = context
        self.certificate = certificate
        self.outbox = Outbox(tag)
        self.number = next(self._numbers)
        self.left: Left | None = None
        """Why this end has cut the stream, if it has."""

    def end(self, code: grpc.StatusCode, reason: str) -> None:
        """Send what waits, and end with this status."""
        self.context.set_code(code)
        self.context.set_details(reason)
        self.outbox.close()

    def cut(self, left: Left) -> None:
        """End at once, whatever waits; the peer may dial again."""
        self.left = left
        self.context.cancel()


class Server:
    """Accepts one stream from each silo that it admits, known by certificate.

    The large frames of all silos together have room for some (see ``places``): a stream waits for
    its place before it reads on. A frame gives its place back when ``on_event`` has returned, or
    later, if that keeps it. A stream whose silo does not read is cut when too much waits for it.

    ``admits`` says of a silo of the federation whether it may have a stream, and at most
    ``max_silos`` have one. ``excluded`` are names of silos, and SHA-256s of certificates of any
    party, that are turned away before that. ``on_event`` is called from gRPC's threads with Joined,
    Received and Left. Operators can call where there is an ``answer``.
    """

    def __init__(
        self,
        identity: Identity,
        federation: str,
        admits: Callable[[str], bool],
        max_silos: int,
        run_id: str,
        max_state_bytes: int,
        on_event: Callable[[Event], None],
        answer: Answer | None = None,
        excluded: frozenset[str] = frozenset(),
    ) -> None:
        self._federation = federation
        self._excluded = excluded
        self._calls = threading.Semaphore(MAX_CALLS)
        self._admits = admits
        self._answer = answer
        self._tag = run_tag(run_id)
        self._max_state_bytes = max_state_bytes
        self._on_event = on_event
        self._streams: dict[str, _Stream] = {}
        self._replaced: dict[str, _Stream] = {}
        """A silo's stream before that, which is told so if its peer reads."""
        self._places = Places()
        channel.require_tls13()
        share_freed_memory()
        self._lock = threading.Lock()
        self._credentials = grpc.ssl_server_credentials(
            [(identity.key, identity.certificate)],
            root_certificates=identity.authority,
            require_client_auth=True,
        )
        handlers = {channel.STREAM: grpc.stream_stream_rpc_method_handler(self._serve)}
        if answer is not None:
            handlers[channel.CALL] = grpc.stream_stream_rpc_method_handler(self._called)
        # A stream holds a thread for as long as it stands: a silo's stream, the one before that
        # until its peer has read why it ends, and a new one, which ends that at the latest.
        threads = 3 * max_silos + (2 if answer is None else MAX_CALLS)
        self._server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="stream"),
            handlers=[grpc.method_handlers_generic_handler(channel.SERVICE, handlers)],
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
                "if another program holds the port, choose another with --port; else correct the "
                "address: it must be one of this machine, an IPv6 one in brackets",
            ) from error
        self._server.start()
        return bound

    def send(self, silo: str, frame: Frame) -> None:
        """Queue a frame; without a stream to the silo it is dropped: rejoining asks again.

        Raises TransportError when the frame's meta is too large.
        """
        with self._lock:
            stream = self._streams.get(silo)
        if stream is not None and not stream.outbox.put(frame):
            reason = "the silo does not read what it is sent"
            _log.warning("stream of silo %s is cut: %s", silo, reason)
            stream.cut(Left(silo, reason, stream=stream.number))

    def refuse(self, silo: str, reason: str) -> None:
        """End the stream of a silo that breaks the rules."""
        with self._lock:
            stream = self._streams.get(silo)
        if stream is not None:
            stream.end(grpc.StatusCode.INVALID_ARGUMENT, reason)

    def stop(self, grace: float) -> None:
        """Stop accepting, end streams once what was queued is sent, or after ``grace`` seconds."""
        stopped = self._server.stop(grace)
        with self._lock:
            streams = list(self._streams.values())
        for stream in streams:
            stream.outbox.close()
        stopped.wait()

    def _serve(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        party, certificate = self._authenticate(context)
        silo = party.name
        stream = _Stream(context, certificate, self._tag)
        with self._lock:  # with the question: a silo that is refused meanwhile has a stream by then
            admitted = party.kind == "silo" and self._admits(silo)
            old = self._streams.get(silo)
            if admitted:
                self._streams[silo] = stream
            older = self._replaced.get(silo)
            if admitted and old is not None:
                self._replaced[silo] = old
        if not admitted:
            self._refuse(context, party.uri, certificate, "is no silo that may take part here")
        if old is not None:
            if older is not None:  # it has had its time to read that
                older.context.cancel()
            old.end(grpc.StatusCode.ABORTED, "another process has taken this silo's place")
        context.add_callback(partial(self._over, silo, stream))
        context.send_initial_metadata(())
        threading.Thread(
            target=self._read, args=(silo, stream, requests), name=f"read-{silo}", daemon=True
        ).start()
        yield from stream.outbox

    def _over(self, silo: str, stream: _Stream) -> None:
        stream.outbox.close()
        with self._lock:
            if self._replaced.get(silo) is stream:
                del self._replaced[silo]  # and what it had still to send

    def _called(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        assert self._answer is not None
        party, certificate = self._authenticate(context)
        if party.kind != "operator":
            self._refuse(context, party.uri, certificate, "is no operator")
        if not self._calls.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_CALLS} calls at once")
        try:
            context.send_initial_metadata(())
            request = self._request(requests, context)
            if request is not None:
                for frame in self._answer(party, request, context.is_active):
                    yield from chunks(frame, self._tag)
        finally:
            self._calls.release()

    def _request(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Frame | None:
        assembler = Assembler(self._tag, self._max_state_bytes)
        try:
            return next((frame for chunk in requests for frame in assembler.feed(chunk)), None)
        except TransportError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            raise AssertionError from error  # abort raises

    def _authenticate(self, context: grpc.ServicerContext) -> tuple[Party, str]:
        """The party of this federation at the other end, and its certificate's fingerprint."""
        shown: Any = context.auth_context()
        certificate = fingerprint(shown["x509_pem_cert"][0])
        names = shown.get("x509_subject_alternative_name", ())
        uris = [name.decode() for name in names if name.startswith(b"spiffe://")]
        party = party_of(uris)
        if party is None or party.federation != self._federation:
            listed = " and ".join(uris) or "a certificate without a SPIFFE URI"
            self._refuse(context, listed, certificate, f"is not of {self._federation}")
        if certificate in self._excluded or (party.kind == "silo" and party.name in self._excluded):
            self._refuse(context, party.uri, certificate, "is excluded from the federation")
        return party, certificate

    def _refuse(
        self, context: grpc.ServicerContext, who: str, certificate: str, why: str
    ) -> NoReturn:
        who = channel.printable(who)
        _log.warning("refused %s, certificate SHA-256 %s: it %s", who, certificate, why)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{who} {why}")
        raise AssertionError  # abort raises

    def _read(self, silo: str, stream: _Stream, requests: Iterator[bytes]) -> None:
        self._on_event(Joined(silo, stream.number, stream.certificate))
        left = Left(silo, "stream ended", stream=stream.number)
        try:
            self._read_frames(silo, stream, requests)
        except TransportError as error:
            left = Left(silo, error.message, refused=True, stream=stream.number)
            stream.context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            stream.context.set_details(error.message)
        except (grpc.RpcError, StreamEnded) as error:
            reason = channel.printable(str(error)) or "the connection broke off"
            left = Left(silo, reason, stream=stream.number)
        except Exception as error:  # noqa: BLE001 - a thread's last resort: its end must be told
            _log.exception("stream of silo %s", silo)
            left = Left(silo, type(error).__name__, refused=True, stream=stream.number)
        stream.outbox.close()
        with self._lock:
            current = self._streams.get(silo) is stream
            if current:
                del self._streams[silo]
        if current:
            self._on_event(stream.left or left)

    def _read_frames(self, silo: str, stream: _Stream, requests: Iterator[bytes]) -> None:
        place: Place | None = None
        stalled = f"no chunk for {CHUNK_SECONDS:.0f} s in the middle of a frame, others waited"
        left = Left(silo, stalled, refused=True, stream=stream.number)

        assembler = Assembler(self._tag, self._max_state_bytes)
        try:
            for chunk in requests:
                if size := assembler.announced(chunk):
                    place = self._places.take(
                        size, stream.context.is_active, lambda: stream.cut(left)
                    )
                frames = assembler.feed(chunk)
                if place is not None:
                    place.chunk(whole=bool(frames))
                while frames:  # not for: their memory is not to wait for the next frames
                    self._on_event(Received(silo, frames.pop(0), stream.number, place))
                    if place is not None and not place.kept:
                        place.free()
                    place = None
        finally:
            if place is not None:
                place.free()
