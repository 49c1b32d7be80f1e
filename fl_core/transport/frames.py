"""Frames: what one message looks like on a stream.

A frame is a fixed header, a small JSON object (``meta``) and the bytes of a state. It travels in
chunks of at most 1 MiB; every length is checked before memory is taken for it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fl_core.errors import TransportError

VERSION = 1
MAX_CHUNK = 1024 * 1024
MAX_META = 64 * 1024
_MAGIC = b"FLS"
_HEADER = struct.Struct("!3sBHxx16sIIQ")
"""Magic, version, kind, run, round, length of meta, length of state."""
_DIGEST_BYTES = 32
"""SHA-256 of header, meta and state; stands behind the header."""
HEADER_BYTES = _HEADER.size + _DIGEST_BYTES


@dataclass(frozen=True)
class Frame:
    """One message. ``kind`` is a FedML message type; ``state`` is safetensors bytes, or empty."""

    kind: int
    round: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    state: bytes | bytearray = b""


def run_tag(run_id: str) -> bytes:
    """The 16 bytes that stand for a run in a header."""
    return hashlib.sha256(run_id.encode()).digest()[:16]


def chunks(frame: Frame, tag: bytes) -> Iterator[bytes]:
    """The frame's chunks, in order. Raises TransportError when ``meta`` is too large."""
    meta = json.dumps(frame.meta, separators=(",", ":")).encode()
    if len(meta) > MAX_META:
        raise TransportError(f"message meta of {len(meta)} bytes", f"at most {MAX_META}")
    view = memoryview(frame.state)
    head = _HEADER.pack(_MAGIC, VERSION, frame.kind, tag, frame.round, len(meta), len(view))
    digest = hashlib.sha256(head)
    digest.update(meta)
    digest.update(view)
    start = MAX_CHUNK - HEADER_BYTES - len(meta)
    first = b"".join((head, digest.digest(), meta, view[:start]))
    rest = (bytes(view[i : i + MAX_CHUNK]) for i in range(start, len(view), MAX_CHUNK))
    return itertools.chain([first], rest)


class Assembler:
    """Puts the chunks of one stream together again, frame by frame."""

    def __init__(self, tag: bytes, max_state_bytes: int) -> None:
        self._tag = tag
        self._max_state_bytes = max_state_bytes
        self._frame: tuple[int, int, dict[str, Any], bytes] | None = None
        self._digest = hashlib.sha256()
        self._state = bytearray()
        self._filled = 0

    def feed(self, chunk: bytes) -> Frame | None:
        """Take the next chunk; gives the frame when it is whole.

        Raises TransportError for anything that is not the next chunk of a valid frame.
        """
        if len(chunk) > MAX_CHUNK:
            raise _refused(f"chunk of {len(chunk)} bytes")
        body = chunk
        if self._frame is None:
            body = self._begin(chunk)
        if len(body) > len(self._state) - self._filled:
            raise _refused("more bytes than announced")
        if not body and self._filled < len(self._state):
            raise _refused("empty chunk")
        self._state[self._filled : self._filled + len(body)] = body
        self._filled += len(body)
        self._digest.update(body)
        return self._end() if self._filled == len(self._state) else None

    def _begin(self, chunk: bytes) -> bytes:
        if len(chunk) < HEADER_BYTES:
            raise _refused(f"header of {len(chunk)} bytes")
        head, digest = chunk[: _HEADER.size], chunk[_HEADER.size : HEADER_BYTES]
        magic, version, kind, tag, round, meta_length, state_length = _HEADER.unpack(head)
        if magic != _MAGIC or version != VERSION:
            raise _refused(f"protocol {magic!r} version {version}, not {VERSION}")
        if tag != self._tag:
            raise _refused("a frame of another run")
        if meta_length > MAX_META or HEADER_BYTES + meta_length > len(chunk):
            raise _refused(f"meta of {meta_length} bytes")
        if state_length > self._max_state_bytes:
            raise TransportError(
                f"state of {state_length} bytes is over the limit of {self._max_state_bytes}",
                "raise max_state_bytes in the run file, or make the model smaller",
            )
        meta_bytes = chunk[HEADER_BYTES : HEADER_BYTES + meta_length]
        try:
            meta = json.loads(meta_bytes)
        except (ValueError, RecursionError) as error:
            raise _refused("meta is not JSON") from error
        if not isinstance(meta, dict):
            raise _refused("meta is no JSON object")
        self._frame = (kind, round, meta, digest)
        self._digest = hashlib.sha256(head + meta_bytes)
        self._state = bytearray(state_length)
        self._filled = 0
        return chunk[HEADER_BYTES + meta_length :]

    def _end(self) -> Frame:
        assert self._frame is not None
        kind, round, meta, digest = self._frame
        if self._digest.digest() != digest:
            raise _refused("digest does not match")
        self._frame = None
        state, self._state = self._state, bytearray()
        self._filled = 0
        return Frame(kind, round, meta, state)


def _refused(what: str) -> TransportError:
    return TransportError(f"refused: {what}", "both ends must run the same version of fl-core")
