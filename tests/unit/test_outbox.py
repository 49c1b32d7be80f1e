"""What waits to be sent: in order, and not without bound."""

import pytest

from fl_core.errors import TransportError
from fl_core.transport.frames import Assembler, Frame, run_tag
from fl_core.transport.outbox import MAX_BYTES, MAX_FRAMES, Outbox

TAG = run_tag("run-1")


def sent(outbox: Outbox) -> list[Frame]:
    assembler = Assembler(TAG, 2 * MAX_BYTES)
    return [frame for chunk in outbox if (frame := assembler.feed(chunk)) is not None]


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
