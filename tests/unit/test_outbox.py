"""What waits to be sent: in order, and not without bound."""

from collections.abc import Iterable

import pytest

from fl_core.errors import TransportError
from fl_core.transport.frames import MAX_CHUNK, SMALL_BYTES, Assembler, Frame, run_tag
from fl_core.transport.outbox import MAX_BYTES, MAX_FRAMES, Outbox

TAG = run_tag("run-1")


def sent(pieces: Iterable[bytes]) -> list[Frame]:
    assembler = Assembler(TAG, 2 * MAX_BYTES)
    return [frame for chunk in pieces for frame in assembler.feed(chunk)]


def test_frames_come_in_order_until_the_end():
    outbox = Outbox(TAG)
    frames = [Frame(1, number, {"n": number}, bytes(number)) for number in range(5)]
    assert all(outbox.put(frame) for frame in frames)
    outbox.close()
    outbox.put(Frame(2))
    assert sent(outbox) == frames


def test_small_frames_wait_up_to_a_number():
    outbox = Outbox(TAG)
    assert all(outbox.put(Frame(1)) for _ in range(MAX_FRAMES))
    assert not outbox.put(Frame(1))
    outbox.close()
    assert len(sent(outbox)) == MAX_FRAMES
    assert outbox.put(Frame(1))


def test_a_large_frame_waits_behind_small_ones_and_small_ones_behind_it():
    outbox = Outbox(TAG)
    large = Frame(1, state=bytes(MAX_BYTES + 1))
    assert [outbox.put(frame) for frame in (Frame(1), large, Frame(2))] == [True, True, True]
    assert not outbox.put(large)
    next(iter(outbox))
    assert not outbox.put(large)


def test_a_large_frame_makes_way_once_it_is_on_its_way():
    outbox = Outbox(TAG)
    large = Frame(1, state=bytes(MAX_BYTES + 1))
    assert outbox.put(large)
    next(iter(outbox))
    assert outbox.put(large)
    assert not outbox.put(large)


def test_a_meta_that_is_too_large_is_not_taken():
    outbox = Outbox(TAG)
    with pytest.raises(TransportError, match="meta"):
        outbox.put(Frame(1, meta={"a": "x" * 70_000}))
    outbox.close()
    assert sent(outbox) == []


def test_small_frames_share_a_chunk_where_one_follows_soon():
    outbox = Outbox(TAG)
    frames = [Frame(1, 1, {}, b"scores"), Frame(2, 2, {}, b"update"), Frame(3)]
    for frame, soon in zip(frames, (True, False, False), strict=True):
        outbox.put(frame, soon)
    outbox.close()
    pieces = list(outbox)
    assert len(pieces) == 2
    assert sent(pieces) == frames


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(1)],
        [Frame(1, state=bytes(SMALL_BYTES)), Frame(2, state=bytes(SMALL_BYTES + 1))],
        [Frame(1, state=bytes(3 * MAX_CHUNK)), Frame(2)],
    ],
    ids=["nothing follows", "a large one follows", "behind a large one"],
)
def test_a_frame_is_sent_though_none_shares_its_chunk(frames):
    outbox = Outbox(TAG)
    for frame in frames:
        outbox.put(frame, soon=frame is frames[0])
    outbox.close()
    assert sent(outbox) == frames


def test_a_frame_does_not_wait_long_for_the_next():
    outbox = Outbox(TAG)
    outbox.put(Frame(1), soon=True)
    first = next(iter(outbox))  # nobody puts another one, or closes it
    assert sent([first]) == [Frame(1)]
