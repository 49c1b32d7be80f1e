"""Frames: what goes in comes out, and nothing else is believed."""

import json
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core.buffers import Buffers
from fl_core.errors import TransportError
from fl_core.transport.frames import (
    HEADER_BYTES,
    MAX_CHUNK,
    MAX_META,
    MOST_TOGETHER,
    SMALL_BYTES,
    VERSION,
    Assembler,
    Frame,
    chunks,
    run_tag,
    word_sum,
)

TAG = run_tag("run-1")
LIMIT = 4 * MAX_CHUNK
HEADER = struct.Struct("!3sBHxx16sIIQ")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
frames = st.builds(
    Frame,
    kind=st.integers(0, 2**16 - 1),
    round=st.integers(0, 2**32 - 1),
    meta=st.dictionaries(st.text(max_size=20), values, max_size=4),
    state=st.binary(max_size=2000),
)


def assembled(pieces: Iterable[bytes], limit: int = LIMIT) -> list[Frame]:
    assembler = Assembler(TAG, limit)
    return [frame for piece in pieces for frame in assembler.feed(piece)]


def packed(
    meta: bytes = b"{}",
    state: bytes = b"",
    magic: bytes = b"FLS",
    version: int = VERSION,
    tag: bytes = TAG,
    meta_length: int | None = None,
    state_length: int | None = None,
    checksum: bytes | None = None,
) -> bytes:
    """One chunk with a header of which any field can be a lie."""
    head = HEADER.pack(
        magic,
        version,
        3,
        tag,
        1,
        len(meta) if meta_length is None else meta_length,
        len(state) if state_length is None else state_length,
    )
    words = state + bytes(-len(state) % 8)
    total = sum(int.from_bytes(words[i : i + 8], "little") for i in range(0, len(words), 8))
    right = struct.pack("!I", zlib.crc32(head + meta + (total % 2**64).to_bytes(8, "little")))
    return head + (right if checksum is None else checksum) + meta + state


def refused(*pieces: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(TransportError) as caught:
        assembled(pieces, limit)
    assert caught.value.remedy
    return caught.value.message


@given(frames)
def test_a_frame_comes_back_as_it_was(frame):
    assert assembled(chunks(frame, TAG)) == [frame]


@given(st.lists(frames, min_size=2, max_size=4))
def test_frames_follow_one_another_on_a_stream(several):
    pieces = [piece for frame in several for piece in chunks(frame, TAG)]
    assert assembled(pieces) == several


def test_the_helper_packs_as_frames_do():
    frame = Frame(3, 1, {}, b"abc")
    assert list(chunks(frame, TAG)) == [packed(state=b"abc")]
    assert HEADER.size + 4 == HEADER_BYTES


FIRST = MAX_CHUNK - HEADER_BYTES - len('{"a":1}')


@pytest.mark.parametrize("whole", [0, 1, 2])
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_states_at_the_edge_of_a_chunk_come_back(whole, offset):
    size = FIRST + whole * MAX_CHUNK + offset
    frame = Frame(1, 2, {"a": 1}, bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    pieces = list(chunks(frame, TAG))
    assert len(pieces) == 1 + whole + (offset > 0)
    assert max(len(piece) for piece in pieces) <= MAX_CHUNK
    assert all(pieces)
    assert assembled(pieces) == [frame]


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_what_was_received_can_be_sent_on(kind):
    frame = Frame(1, 0, {}, kind(b"state"))
    (received,) = assembled(chunks(frame, TAG))
    assert assembled(chunks(received, TAG)) == [frame]


def test_the_largest_meta_travels_and_a_larger_one_does_not():
    frame = Frame(1, 0, {"a": "x" * (MAX_META - 8)})
    assert assembled(chunks(frame, TAG)) == [frame]
    with pytest.raises(TransportError, match="message meta of 65537 bytes"):
        list(chunks(Frame(1, 0, {"a": "x" * (MAX_META - 7)}), TAG))


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (b"", "header of 0 bytes"),
        (packed()[: HEADER_BYTES - 1], f"header of {HEADER_BYTES - 1} bytes"),
        (packed(magic=b"FLX"), "protocol b'FLX' version 2, not 2"),
        (packed(version=VERSION - 1), "version 1, not 2"),
        (packed(tag=run_tag("run-2")), "a frame of another run"),
        (packed(meta_length=3), "meta of 3 bytes"),
        (packed(meta_length=2**32 - 1), "meta of 4294967295 bytes"),
        (packed(meta=b"{}" + b" " * MAX_META), "meta of 65538 bytes"),
        (packed(meta=b"{"), "meta is not JSON"),
        (packed(meta=b"\xff"), "meta is not JSON"),
        (packed(meta=b""), "meta is not JSON"),
        (packed(meta=b"[" * 60_000), "meta is not JSON"),
        (packed(meta=b"1" * 60_000), "meta is not JSON"),
        (packed(meta=b"[]"), "meta is no JSON object"),
        (packed(meta=b"null"), "meta is no JSON object"),
        (packed(state=b"ab", state_length=1), "checksum does not match"),
        (packed(state_length=2), f"chunk of {HEADER_BYTES + 2} bytes, 2 before the end"),
        (packed(state=b"ab", checksum=bytes(4)), "checksum does not match"),
        (b"x" * (MAX_CHUNK + 1), f"chunk of {MAX_CHUNK + 1} bytes"),
    ],
)
def test_a_first_chunk_that_breaks_the_rules_is_refused(piece, message):
    assert message in refused(piece)


BODY = bytes(range(256)) * (2 * MAX_CHUNK // 256)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda first, second, last: (first, b""), "chunk of 0 bytes"),
        (lambda first, second, last: (first, second[:-1]), f"chunk of {MAX_CHUNK - 1} bytes, "),
        (lambda first, second, last: (first[:-1],), f"chunk of {MAX_CHUNK - 1} bytes, "),
        (lambda first, second, last: (first, second, second), "more bytes than announced"),
        (lambda first, second, last: (first, second, last + b"x"), "more bytes than announced"),
        (lambda first, second, last: (first, second, b"x" * len(last)), "checksum does not match"),
        (lambda first, second, last: (first, second + b"x"), f"chunk of {MAX_CHUNK + 1} bytes"),
    ],
    ids=["empty", "short", "short first", "long", "long last", "changed", "oversized"],
)
def test_a_later_chunk_that_breaks_the_rules_is_refused(changed, message):
    first, second, last = chunks(Frame(3, 1, {}, BODY), TAG)
    assert assembled([first, second, last])[0].state == BODY
    assert message in refused(*changed(first, second, last))


def test_a_large_state_is_announced_by_its_first_chunk_and_a_small_one_by_none():
    announced: list[int] = []
    assembler = Assembler(TAG, LIMIT)
    for size in (0, SMALL_BYTES, SMALL_BYTES + 1, 2 * MAX_CHUNK):
        for piece in chunks(Frame(1, state=bytes(size)), TAG):
            announced.append(assembler.announced(piece))
            assembler.feed(piece)
    assert [size for size in announced if size] == [SMALL_BYTES + 1, 2 * MAX_CHUNK]


def test_no_memory_is_taken_for_what_is_announced():
    first = next(iter(chunks(Frame(1, state=bytes(LIMIT)), TAG)))
    assembler = Assembler(TAG, LIMIT)
    tracemalloc.start()
    try:
        assert assembler.announced(first) == LIMIT
        assert tracemalloc.get_traced_memory()[1] < MAX_CHUNK
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300), st.integers(0, 3))
def test_what_is_announced_breaks_the_rules_as_what_is_fed(garbage, padding):
    chunk = garbage + bytes(padding * SMALL_BYTES)
    feeding, asking = Assembler(TAG, LIMIT), Assembler(TAG, LIMIT)
    with pytest.raises(TransportError) as fed:
        feeding.feed(chunk)
    if len(chunk) > SMALL_BYTES:
        with pytest.raises(TransportError) as asked:
            asking.announced(chunk)
        assert asked.value.message == fed.value.message


def test_a_large_state_does_not_come_behind_another_frame():
    small, large = (
        b"".join(chunks(Frame(1, state=bytes(size)), TAG)) for size in (8, SMALL_BYTES + 8)
    )
    assert "behind another frame" in refused(small + large)


def test_a_checksum_that_is_known_is_believed():
    frame = Frame(1, state=b"abc", state_sum=word_sum(b"abc"))
    assert list(chunks(frame, TAG)) == list(chunks(Frame(1, state=b"abc"), TAG))
    wrong = Frame(1, state=b"abc", state_sum=word_sum(b"abd"))
    assert "checksum" in refused(*chunks(wrong, TAG))


@given(parts=st.lists(st.binary(max_size=20), max_size=6))
def test_a_state_in_several_places_travels_as_in_one(parts: list[bytes]):
    state = b"".join(parts)
    assert word_sum(Buffers(parts)) == word_sum(state)
    assert list(chunks(Frame(1, 2, {}, Buffers(parts)), TAG)) == list(
        chunks(Frame(1, 2, {}, state), TAG)
    )


@pytest.mark.parametrize("parts", [(3, 2 * MAX_CHUNK), (MAX_CHUNK, 0, 5), (SMALL_BYTES + 9,)])
def test_a_large_state_in_several_places_travels_as_in_one(parts: tuple[int, ...]):
    split = [bytes([number + 1]) * size for number, size in enumerate(parts)]
    frame = Frame(1, 2, {}, Buffers(split))
    assert assembled(chunks(frame, TAG)) == [Frame(1, 2, {}, b"".join(split))]


def test_a_received_state_is_memory_of_its_own():
    pieces = [bytearray(piece) for piece in chunks(Frame(1, state=BODY), TAG)]
    (received,) = assembled(pieces)
    for piece in pieces:
        piece[:] = bytes(len(piece))
    assert received.state == BODY


@pytest.mark.parametrize("announced", [LIMIT + 1, 2**40, 2**64 - 1])
def test_an_announced_size_over_the_limit_is_refused_before_memory_is_taken(announced):
    piece = packed(state=b"ab", state_length=announced)
    tracemalloc.start()
    try:
        message = refused(piece)
        assert tracemalloc.get_traced_memory()[1] < MAX_CHUNK
    finally:
        tracemalloc.stop()
    assert message == f"state of {announced} bytes is over the limit of {LIMIT}"


def test_a_state_at_the_limit_is_taken():
    frame = Frame(1, 0, {}, b"x" * 1000)
    assert assembled(chunks(frame, TAG), limit=1000) == [frame]
    assert "over the limit of 999" in refused(*chunks(frame, TAG), limit=999)


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_garbage_raises_nothing_but_transport_errors(pieces):
    with suppress(TransportError):
        assert assembled(pieces) == []


@given(st.lists(st.binary(max_size=100), max_size=3), st.binary(max_size=100))
def test_garbage_behind_a_valid_header_raises_nothing_but_transport_errors(pieces, meta):
    with suppress(TransportError):
        assembled([packed(meta), *pieces])


@given(frames, st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_noticed(frame, position, change):
    piece = bytearray(next(iter(chunks(frame, TAG))))
    piece[position % len(piece)] ^= change
    with pytest.raises(TransportError):
        assembled([bytes(piece)], limit=MAX_CHUNK)


@given(frames, st.data())
def test_a_truncated_first_chunk_is_no_frame(frame, data):
    (piece,) = chunks(frame, TAG)
    cut = data.draw(st.integers(0, len(piece) - 1))
    with suppress(TransportError):
        assert assembled([piece[:cut]]) == []


def test_tags_are_16_bytes_and_differ_by_run():
    assert len(TAG) == 16
    assert run_tag("run-1") == TAG
    assert run_tag("run-2") != TAG


def test_meta_is_plain_json():
    piece = next(iter(chunks(Frame(1, 0, {"b": 1, "a": "é"}), TAG)))
    assert json.loads(piece[HEADER_BYTES:]) == {"b": 1, "a": "é"}


@given(st.lists(frames, min_size=1, max_size=MOST_TOGETHER))
def test_small_frames_may_share_a_chunk(together):
    chunk = b"".join(piece for frame in together for piece in chunks(frame, TAG))
    assert assembled([chunk, chunk]) == [*together, *together]


SMALL = b"".join(chunks(Frame(1, state=b"small"), TAG))
LARGE = b"".join(chunks(Frame(2, state=bytes(SMALL_BYTES + 1)), TAG))


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (SMALL * (MOST_TOGETHER + 1), "more bytes than announced"),
        (LARGE + SMALL, "more bytes than announced"),
        (SMALL + SMALL[:-1], "1 before the end"),
        (SMALL + b"x", "header of 1 bytes"),
        (SMALL + next(chunks(Frame(2, state=BODY), TAG))[: MAX_CHUNK - len(SMALL)], "before the"),
    ],
    ids=["too many", "behind a large one", "cut off", "garbage", "half a large one"],
)
def test_what_may_not_share_a_chunk_is_refused(chunk, message):
    assert message in refused(chunk)


@pytest.mark.parametrize("size", [0, 10, MAX_CHUNK, 3 * MAX_CHUNK])
def test_a_frame_that_waits_for_something_is_not_whole_before_that(size):
    after: Future[None] = Future()
    pieces = chunks(Frame(1, state=bytes(size), after=after), TAG)
    count = -(-(HEADER_BYTES + len("{}") + size) // MAX_CHUNK)
    assembler = Assembler(TAG, LIMIT)
    for _ in range(count - 1):
        assert assembler.feed(next(pieces)) == []
    threading.Timer(0.05, after.set_result, [None]).start()
    (last,) = pieces
    assert after.done()
    assert assembler.feed(last) == [Frame(1, state=bytes(size))]


def test_a_frame_that_waits_for_what_fails_is_never_whole():
    after: Future[None] = Future()
    after.set_exception(OSError())
    assert len(list(chunks(Frame(1, state=bytes(MAX_CHUNK), after=after), TAG))) == 1
