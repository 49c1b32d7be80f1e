"""What coordinator, agents and operators say to each other: one JSON object a message."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core.errors import TransportError
from fl_core.service import control
from fl_core.transport.frames import Assembler, Frame, chunks

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
objects = st.dictionaries(st.text(), values, max_size=5)
kinds = st.integers(0, 255)
FRAME_OVERHEAD = len('{"text":""}')


def of_length(length: int) -> dict[str, str]:
    """An object whose message has ``length`` bytes."""
    return {"text": "x" * (length - FRAME_OVERHEAD)}


@given(kinds, objects)
def test_a_body_is_the_same_at_the_other_end(kind, body):
    frame = control.message(kind, body)
    assert frame.kind == kind
    assert control.body(frame) == body


@given(kinds, objects)
def test_a_message_is_the_same_after_the_wire(kind, body):
    assembler = Assembler(control.TAG, control.MAX_BYTES)
    pieces = list(chunks(control.message(kind, body), control.TAG))
    (frame,) = [frame for chunk in pieces for frame in assembler.feed(chunk)]
    assert frame.kind == kind
    assert control.body(frame) == body


def test_half_a_character_does_not_stop_a_message():
    body = {"text": "\ud800"}
    assert control.body(control.message(control.ANSWER, body)) == body


def test_the_largest_message_passes_every_limit():
    frame = control.message(control.SUBMIT, of_length(control.MAX_BYTES))
    assert len(frame.state) == control.MAX_BYTES
    assembler = Assembler(control.TAG, control.MAX_BYTES)
    (arrived,) = [one for chunk in chunks(frame, control.TAG) for one in assembler.feed(chunk)]
    assert control.body(arrived) == control.body(frame)


def test_a_message_that_is_too_large_is_refused_before_it_is_sent():
    with pytest.raises(TransportError, match=f"message of {control.MAX_BYTES + 1} bytes") as caught:
        control.message(control.SUBMIT, of_length(control.MAX_BYTES + 1))
    assert str(control.MAX_BYTES) in caught.value.remedy


def test_a_part_of_a_file_fits_a_message():
    assert control.PART_BYTES <= control.MAX_BYTES


@pytest.mark.parametrize(
    "state",
    [b"", b"{", b"{]", b"nothing", b"\xff\xfe\xfd", b"{'a': 1}", b"\0" * 8, b'{"a": 1}{"b": 2}'],
)
def test_what_is_no_json_is_refused(state):
    with pytest.raises(TransportError, match="is not JSON") as caught:
        control.body(Frame(control.HELLO, state=state))
    assert "same version" in caught.value.remedy


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_without_a_bottom_is_refused(opening):
    with pytest.raises(TransportError, match="is not JSON"):
        control.body(Frame(control.HELLO, state=opening * 100_000))


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "text", [], [{"a": 1}]])
def test_json_that_is_no_object_is_refused(value):
    with pytest.raises(TransportError, match="no JSON object"):
        control.body(Frame(control.HELLO, state=json.dumps(value).encode()))


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_refused(state):
    try:
        body = control.body(Frame(control.HELLO, state=state))
    except TransportError:
        return
    assert isinstance(body, dict)


def test_every_kind_has_a_number_of_its_own():
    names = "HELLO ENDED START STOP SUBMIT STATUS LOGS STOP_RUN FETCH ANSWER PART ERROR".split()
    numbers = [getattr(control, name) for name in names]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number <= 255 for number in numbers)
