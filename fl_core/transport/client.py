"""The dialling end: a silo's stream, which is dialled again when it is lost; an operator's call."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from fl_core.errors import TransportError
from fl_core.transport import channel
from fl_core.transport.channel import Event, Joined, Left, Received
from fl_core.transport.frames import Assembler, Frame, chunks, run_tag
from fl_core.transport.identity import Identity, server_name
from fl_core.transport.outbox import Outbox

_log = logging.getLogger(__name__)
AGGREGATOR = "aggregator"
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
_FINAL = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Codes at which dialling again would only repeat the answer."""


def dial(identity: Identity, federation: str, target: str) -> grpc.Channel:
    """A channel to the aggregator at ``HOST:PORT``, whichever name that host has."""
    channel.require_tls13()
    return grpc.secure_channel(
        target,
        grpc.ssl_channel_credentials(
            root_certificates=identity.authority,
            private_key=identity.key,
            certificate_chain=identity.certificate,
        ),
        options=[
            *channel.OPTIONS,
            ("grpc.ssl_target_name_override", server_name(federation)),
        ],
    )


def call(
    identity: Identity, target: str, tag: bytes, request: Frame, limit: int
) -> Iterator[Frame]:
    """The frames, of at most ``limit`` bytes, that answer an operator's request.

    Raises TransportError when the coordinator cannot be reached, or refuses.
    """
    federation = identity.party.federation
    with dial(identity, federation, target) as open_channel:
        answers = open_channel.stream_stream(channel.path(channel.CALL))(
            chunks(request, tag), timeout=None
        )
        assembler = Assembler(tag, limit)
        try:
            for chunk in answers:
                yield from assembler.feed(chunk)
        except grpc.RpcError:
            raise _failed(answers, target, identity) from None


def _failed(answers: grpc.Call, target: str, identity: Identity) -> TransportError:
    """What a call's status means, in words for the operator."""
    details = channel.printable(answers.details())
    me = f"certificate SHA-256 {identity.fingerprint}"
    if answers.code() is grpc.StatusCode.PERMISSION_DENIED:
        return TransportError(
            f"{target} refused this call: {details} ({me})",
            "only a certificate of an operator of the federation may do this: see `fl certs issue`",
        )
    return TransportError(
        f"{target} does not answer as the coordinator of {identity.party.federation!r}: "
        f"{answers.code().name}: {details} ({me})",
        "check the address, that the coordinator runs, and that both certificates come from the "
        "same authority",
    )


class Client:
    """One stream to the aggregator, renewed until :meth:`stop`.

    ``on_event`` is called from the client's thread with Joined, Received and Left. A Left that is
    ``refused`` is the last event: also when no stream could be had for ``patience`` seconds.
    """

    def __init__(
        self,
        identity: Identity,
        federation: str,
        run_id: str,
        max_state_bytes: int,
        on_event: Callable[[Event], None],
        patience: float,
    ) -> None:
        self._tag = run_tag(run_id)
        self._max_state_bytes = max_state_bytes
        self._on_event = on_event
        self._patience = patience
        self._identity = identity
        self._federation = federation
        self._outbox = Outbox(self._tag)
        self._call: grpc.Call | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, host: str, port: int) -> None:
        """Begin to dial; events follow."""
        self._thread = threading.Thread(
            target=self._run, args=(f"{host}:{port}",), name="dial", daemon=True
        )
        self._thread.start()

    def send(self, frame: Frame, soon: bool = False) -> None:
        """Queue a frame for the stream that stands; it is lost with the stream.

        ``soon``: another one is likely to follow at once. The stream is cut, and dialled anew, when
        too much waits because nobody reads it. Raises TransportError when the frame's meta is too
        large.
        """
        call = self._call
        if not self._outbox.put(frame, soon) and call is not None:
            call.cancel()

    def stop(self) -> None:
        """Send what is queued, close the stream, and wait for its end, but not for ever."""
        self._stopping.set()
        self._outbox.close()
        if self._thread is not None:
            self._thread.join(channel.STOP_SECONDS)

    def _run(self, target: str) -> None:
        lost = time.monotonic()
        delay = _FIRST_DELAY
        told = ""
        while not self._stopping.is_set():
            left, joined = self._stream(target)
            if self._stopping.is_set():
                return
            now = time.monotonic()
            if joined:
                lost, delay = now, _FIRST_DELAY
            if not left.refused and now - lost > self._patience:
                reason = f"{target} not reached for {self._patience:.0f} s: {left.reason}"
                left = Left(AGGREGATOR, reason, refused=True)
            if joined or left.refused or left.reason != told:  # once is enough, not every 5 s
                told = left.reason
                me = self._identity.fingerprint
                _log.warning("stream to %s: %s (certificate SHA-256 %s)", target, told, me)
            self._on_event(left)
            if left.refused:
                return
            self._stopping.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay = min(2 * delay, _LONGEST_DELAY)

    def _stream(self, target: str) -> tuple[Left, bool]:
        """One stream from dial to end; gives its end and whether it ever stood."""
        outbox = self._outbox = Outbox(self._tag)
        if self._stopping.is_set():  # stop() may have closed the outbox before this one
            outbox.close()
        joined = False
        with dial(self._identity, self._federation, target) as open_channel:
            stream = open_channel.stream_stream(channel.path(channel.STREAM))
            chunks_in = self._call = stream(iter(outbox))
            try:
                chunks_in.initial_metadata()  # waits until the server has let us in, or not
                if chunks_in.is_active():
                    joined = True
                    self._on_event(Joined(AGGREGATOR))
                assembler = Assembler(self._tag, self._max_state_bytes)
                for chunk in chunks_in:
                    for frame in assembler.feed(chunk):
                        self._on_event(Received(AGGREGATOR, frame))
                        frame = None  # its memory is not to wait for the next frame
            except TransportError as error:
                return Left(AGGREGATOR, error.message, refused=True), joined
            except grpc.RpcError:
                reason = f"{chunks_in.code().name}: {channel.printable(chunks_in.details())}"
                return Left(AGGREGATOR, reason, refused=chunks_in.code() in _FINAL), joined
            finally:
                outbox.close()
        return Left(AGGREGATOR, "stream ended"), joined
