"""Frames: what one message looks like on a stream.

A frame is a fixed header, a small JSON object (``meta``) and the bytes of a state. It travels in
chunks of 1 MiB, of which only the last may be shorter; small frames may share one chunk. Every
length is checked before memory is taken for it.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fl_core import blocks
from fl_core.buffers import Buffers, Bytes
from fl_core.errors import TransportError

VERSION = 2
MAX_CHUNK = 1024 * 1024
MAX_META = 64 * 1024
SMALL_BYTES = 64 * 1024
"""A state of more bytes is large: room for it is asked for before memory is taken."""
MOST_TOGETHER = 8
"""Small frames in one chunk."""
_WORD = 8
_WITHIN_GIL = 500
_MAGIC = b"FLS"
_HEADER = struct.Struct("!3sBHxx16sIIQ")
"""Magic, version, kind, run, round, length of meta, length of state."""
_CHECKSUM = struct.Struct("!I")
"""CRC-32 of the header, of meta and of the state's :func:`word_sum`; stands behind the header.

TLS authenticates every byte on its way, in order: this is for mistakes of either end, such as a
state that changes while it is sent, not for attacks.
"""
HEADER_BYTES = _HEADER.size + _CHECKSUM.size


@dataclass(frozen=True)
class Frame:
    """One message. ``kind`` is a FedML message type; ``state`` is safetensors bytes, or empty."""

    kind: int
    round: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    state: Bytes | Buffers = b""
    """One that came lies in one place."""
    state_sum: int | None = field(default=None, compare=False)
    """:func:`word_sum` of ``state``, where it is known: one state is sent to many."""
    after: Future[None] | None = field(default=None, compare=False)
    """One that is sent is not whole at its receiver before this is done, and never if it fails."""


def run_tag(run_id: str) -> bytes:
    """The 16 bytes that stand for a run in a header."""
    return hashlib.sha256(run_id.encode()).digest()[:16]


def word_sum(state: Bytes | Buffers) -> int:
    """The sum of 64-bit words, modulo 2**64, the last one filled with zeros.

    The Internet checksum (RFC 1071) with wider words: as fast as memory is read.
    """
    total = at = 0
    for part in Buffers.of(state).parts:
        view, shift = memoryview(part), at % _WORD
        begun = view[: -shift % _WORD]  # what is left of the last word of the part before
        total += (int.from_bytes(begun, "little") << 8 * shift) + _whole_words(view[len(begun) :])
        at += len(view)
    return total % 2**64


def _whole_words(view: memoryview) -> int:
    count = len(view) // _WORD
    rest = int.from_bytes(view[count * _WORD :], "little")
    words = np.frombuffer(view, "<u8", count)
    # Of more words at once numpy lets go of the GIL, which a small state would wait for.
    most = _WITHIN_GIL if len(view) <= SMALL_BYTES else max(count, 1)
    return rest + sum(
        int(np.add.reduce(words[start : start + most])) for start in range(0, count, most)
    )


def _checksum(head: bytes, meta: bytes, state_sum: int) -> bytes:
    covered = b"".join((head, meta, state_sum.to_bytes(_WORD, "little")))
    return _CHECKSUM.pack(zlib.crc32(covered))


def chunks(frame: Frame, tag: bytes) -> Iterator[bytes]:
    """The frame's chunks, in order. Raises TransportError when ``meta`` is too large."""
    meta = json.dumps(frame.meta, separators=(",", ":")).encode()
    if len(meta) > MAX_META:
        raise TransportError(f"message meta of {len(meta)} bytes", f"at most {MAX_META}")
    state = Buffers.of(frame.state)
    head = _HEADER.pack(_MAGIC, VERSION, frame.kind, tag, frame.round, len(meta), len(state))
    state_sum = word_sum(state) if frame.state_sum is None else frame.state_sum
    opening = b"".join((head, _checksum(head, meta, state_sum), meta))
    # Copies: gRPC takes nothing but bytes.
    pieces = Buffers((opening, *state.parts)).cut(MAX_CHUNK)
    return pieces if frame.after is None else _held_back(pieces, frame.after)


def _held_back(pieces: Iterator[bytes], after: Future[None]) -> Iterator[bytes]:
    """All but the last piece at once, and that when ``after`` is done."""
    last = next(pieces)
    for piece in pieces:
        yield last
        last = piece
    if after.exception() is None:
        yield last


class Assembler:
    """Puts the chunks of one stream together again, frame by frame."""

    def __init__(self, tag: bytes, max_state_bytes: int) -> None:
        self._tag = tag
        self._max_state_bytes = max_state_bytes
        self._frame: tuple[int, int, dict[str, Any], bytes, bytes, bytes] | None = None
        self._state = memoryview(b"")
        self._filled = self._summed = self._sum = 0

    def announced(self, chunk: bytes) -> int:
        """Bytes of the large state that the next chunk begins; 0 where it begins none.

        No memory is taken for it before the chunk is fed. Raises TransportError as :meth:`feed`.
        """
        if self._frame is not None or len(chunk) <= SMALL_BYTES:
            return 0
        length = self._header(memoryview(chunk))[3]
        return length if length > SMALL_BYTES else 0

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next chunk; gives the frames that are whole now: several small ones, or one.

        Their states are memory of their own, which nobody else changes. Raises TransportError for
        anything that is not the next chunk of valid frames.
        """
        if len(chunk) > MAX_CHUNK:
            raise _refused(f"chunk of {len(chunk)} bytes")
        frames: list[Frame] = []
        rest = memoryview(chunk)
        while rest or not frames:
            if self._frame is None:
                rest = self._begin(rest, first=not frames)
            missing = len(self._state) - self._filled
            body, rest = rest[:missing], rest[missing:]
            missing -= len(body)
            if missing and len(chunk) < MAX_CHUNK:
                raise _refused(f"chunk of {len(chunk)} bytes, {missing} before the end")
            if rest and (len(self._state) > SMALL_BYTES or len(frames) + 1 == MOST_TOGETHER):
                raise _refused("more bytes than announced")
            self._fill(body, last=not missing)
            if missing:
                break
            frames.append(self._end())
        return frames

    def _fill(self, body: memoryview, last: bool) -> None:
        self._state[self._filled : self._filled + len(body)] = body
        self._filled += len(body)
        # While the bytes are in the processor's cache; whole words, but at the end.
        until = self._filled if last else self._filled - self._filled % _WORD
        self._sum += word_sum(self._state[self._summed : until])
        self._summed = until

    def _header(self, chunk: memoryview) -> tuple[int, int, int, int]:
        """Kind, round, and the lengths of meta and state: what the chunk begins with, checked."""
        if len(chunk) < HEADER_BYTES:
            raise _refused(f"header of {len(chunk)} bytes")
        magic, version, kind, tag, round, meta_length, state_length = _HEADER.unpack_from(chunk)
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
        missing = state_length - (len(chunk) - HEADER_BYTES - meta_length)
        if missing > 0 and len(chunk) < MAX_CHUNK:  # before memory is taken
            raise _refused(f"chunk of {len(chunk)} bytes, {missing} before the end")
        return kind, round, meta_length, state_length

    def _begin(self, chunk: memoryview, first: bool) -> memoryview:
        kind, round, meta_length, state_length = self._header(chunk)
        if state_length > SMALL_BYTES and not first:  # nobody has had room for it
            raise _refused("a large state behind another frame")
        head = bytes(chunk[: _HEADER.size])
        body = chunk[HEADER_BYTES + meta_length :]
        meta_bytes = bytes(chunk[HEADER_BYTES : HEADER_BYTES + meta_length])
        try:
            meta = json.loads(meta_bytes)
        except (ValueError, RecursionError) as error:
            raise _refused("meta is not JSON") from error
        if not isinstance(meta, dict):
            raise _refused("meta is no JSON object")
        checksum = bytes(chunk[_HEADER.size : HEADER_BYTES])
        self._frame = (kind, round, meta, head, meta_bytes, checksum)
        self._state = blocks.empty(state_length, np.uint8).data
        self._filled = self._summed = self._sum = 0
        return body

    def _end(self) -> Frame:
        assert self._frame is not None
        kind, round, meta, head, meta_bytes, checksum = self._frame
        if _checksum(head, meta_bytes, self._sum % 2**64) != checksum:
            raise _refused("checksum does not match")
        self._frame = None
        state, self._state = self._state, memoryview(b"")
        return Frame(kind, round, meta, state)


def _refused(what: str) -> TransportError:
    return TransportError(f"refused: {what}", "both ends must run the same version of fl-core")
