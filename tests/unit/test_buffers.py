"""Buffers: the same bytes as if they lay in one place."""

from hypothesis import given
from hypothesis import strategies as st

from fl_core.buffers import Buffers

parts = st.lists(st.binary(max_size=20), max_size=6)


@given(parts=parts)
def test_they_are_one_behind_the_other(parts: list[bytes]):
    buffers = Buffers(parts)
    assert bytes(buffers) == b"".join(parts)
    assert len(buffers) == len(b"".join(parts))


@given(parts=parts, size=st.integers(1, 30))
def test_pieces_are_of_one_size_but_the_last(parts: list[bytes], size: int):
    whole = b"".join(parts)
    expected = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert list(Buffers(parts).cut(size)) == expected


def test_what_lies_in_one_place_is_not_copied():
    state = bytearray(b"abc")
    buffers = Buffers.of(memoryview(state))
    state[0] = ord("x")
    assert bytes(buffers) == b"xbc"
    assert Buffers.of(buffers) is buffers
