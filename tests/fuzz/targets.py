"""The targets: each takes any bytes, and fails where the code under test breaks its word.

Its word is to raise nothing but its own typed error, and to give back what was put in.
"""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import safetensors.numpy

from fl_core import spec
from fl_core import state as states
from fl_core.dataset import Label, Number, Schema
from fl_core.errors import SpecError, TransportError, UpdateError
from fl_core.roles import answers
from fl_core.service import control
from fl_core.transport.frames import MAX_CHUNK, VERSION, Assembler, Frame, chunks, run_tag, word_sum

TAG = run_tag("fuzz")
LIMIT = 4 * MAX_CHUNK
SCHEMA = Schema(
    columns={"a": Number(), "b": Number()}, label=Label(column="y", negative=(0,), positive=(1,))
)
ROWS = {"train": 10, "validation": 3, "test": 4}
_HEADER = struct.Struct("!3sBHxx16sIIQ")


def parts(data: bytes) -> list[bytes]:
    """The input in pieces, each behind its length in two bytes."""
    found = []
    while len(data) >= 2:
        length = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found


def joined(*pieces: bytes) -> bytes:
    """The input of which :func:`parts` makes ``pieces``."""
    return b"".join(len(piece).to_bytes(2, "big") + piece for piece in pieces)


def fed(assembler: Assembler, piece: bytes) -> list[Frame]:
    """What a piece gives, as the server reads it: a large state is announced before it is begun."""
    announced = assembler.announced(piece)
    found = assembler.feed(piece)
    assert not announced or not found or announced == len(found[0].state)
    return found


def frames(data: bytes) -> None:
    """Pieces as the chunks of a stream."""
    assembler = Assembler(TAG, LIMIT)
    with suppress(TransportError):
        for piece in parts(data):
            fed(assembler, piece)


def framed(data: bytes) -> None:
    """Pieces as metas and states behind a header that is right; they come as they were sent."""
    pieces = parts(data)
    assembler = Assembler(TAG, LIMIT)
    with suppress(TransportError):
        for meta, state in zip(pieces[::2], pieces[1::2], strict=False):
            head = _HEADER.pack(b"FLS", VERSION, 3, TAG, 1, len(meta), len(state))
            covered = head + meta + word_sum(state).to_bytes(8, "little")
            chunk = head + struct.pack("!I", zlib.crc32(covered)) + meta + state
            (frame,) = assembler.feed(chunk)
            assert frame.state == state
            assert frame.meta == json.loads(meta) or b"NaN" in meta
            again = Frame(frame.kind, frame.round, frame.meta, frame.state)
            (piece,) = chunks(again, TAG)
            assert [one.state for one in assembler.feed(piece + piece)] == [state, state]


def chunked(data: bytes) -> None:
    """A state of many times the input, in as many chunks as it takes; and one byte changed."""
    if len(data) < 8:
        return
    times, place, change = struct.unpack("!HIB", data[:7])
    state = data[7:] * (1 + times % (LIMIT // len(data)))
    pieces = list(chunks(Frame(1, 2, {"n": times}, state), TAG))
    assert all(len(piece) == MAX_CHUNK for piece in pieces[:-1])
    assembler = Assembler(TAG, LIMIT)
    assert [fed(assembler, piece) for piece in pieces][-1] == [Frame(1, 2, {"n": times}, state)]
    number = place % len(pieces)
    changed = bytearray(pieces[number])
    changed[place % len(changed)] ^= change or 1
    pieces[number] = bytes(changed)
    with suppress(TransportError):
        # Nothing: more was announced than there is.
        assert not any(fed(assembler, piece) for piece in pieces)


def state(data: bytes) -> None:
    """Bytes as a state: what is taken is what safetensors' own library reads."""
    try:
        found = states.decode(data, 1 << 16)
    except UpdateError:
        return
    theirs = safetensors.numpy.load(data)
    assert found.keys() == theirs.keys()
    for name, array in found.items():
        assert (array.dtype, array.shape) == (theirs[name].dtype, theirs[name].shape)
        assert array.tobytes() == theirs[name].tobytes()
    again = states.decode(states.encode(found), 1 << 20)
    assert {name: a.tobytes() for name, a in again.items()} == {
        name: a.tobytes() for name, a in found.items()
    }


def header(data: bytes) -> None:
    """Bytes as a state's header, before as many zeros as its first two bytes say."""
    size, text = int.from_bytes(data[:2], "big"), data[2:]
    state(struct.pack("<Q", len(text)) + text + bytes(size))


def run_file(data: bytes) -> None:
    """Bytes as a run file."""
    with tempfile.NamedTemporaryFile(suffix=".yaml", dir=_memory()) as file:
        file.write(data)
        file.flush()
        with suppress(SpecError):
            found, _ = spec.load(Path(file.name))
            assert spec.RunSpec.model_validate_json(found.model_dump_json()) == found


def control_message(data: bytes) -> None:
    """Bytes as what coordinator, agents and operators say."""
    with suppress(TransportError):
        body = control.body(Frame(control.HELLO, state=data))
        assert control.body(control.message(control.HELLO, body)).keys() == body.keys()


def answer(data: bytes) -> None:
    """Pieces as the parameters, the arrays' header and their bytes of an answer of any kind.

    Of the bytes most are zeros: two say how many there are, and each three more the place and the
    value of one that is none.
    """
    pieces = parts(data)
    if len(pieces) < 3:
        return
    text, sparse = pieces[1], pieces[2]
    body = bytearray(int.from_bytes(sparse[:2], "big"))
    for at in range(2, len(sparse) - 2, 3):
        place = int.from_bytes(sparse[at : at + 2], "big")
        body[place : place + 1] = sparse[at + 2 : at + 3] if place < len(body) else b""
    encoded = struct.pack("<Q", len(text)) + text + body
    try:
        params, arrays = json.loads(pieces[0]), states.decode(encoded, 1 << 17)
    except (ValueError, RecursionError, UpdateError):
        return
    if not isinstance(params, dict):
        return
    with suppress(UpdateError):
        answers.sums(params, arrays, SCHEMA)
    with suppress(UpdateError):
        trained = answers.trained(params, arrays, ROWS)
        assert 1 <= trained.update.weight <= ROWS["train"]
        assert all(np.isfinite(a).all() for a in trained.update.state.values())
    for personal in (False, True):
        with suppress(UpdateError):
            assert answers.scored(params, arrays, ROWS, personal).test.count == ROWS["test"]


def _memory() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - unique names


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames,
    "framed": framed,
    "chunked": chunked,
    "state": state,
    "header": header,
    "run-file": run_file,
    "control": control_message,
    "answer": answer,
}
