"""Large memory that is used again: never while anything of it is still in use."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core import blocks

SIZE = blocks.LARGE_BYTES


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that no other test has used."""
    monkeypatch.setattr(blocks, "_blocks", blocks._Blocks())


def test_memory_that_nobody_uses_is_used_again() -> None:
    first = blocks.empty(SIZE, np.uint8)
    place = address(first)
    del first
    again = blocks.empty((SIZE // 8,), np.float64)
    assert address(again) == place
    assert again.flags.writeable
    assert again.flags.c_contiguous


@pytest.mark.parametrize(
    "kept",
    [
        lambda array: array,
        lambda array: array[5:6],
        lambda array: array.view(np.uint16),
        lambda array: array.reshape(2, -1).T,
        lambda array: array.data,
        lambda array: memoryview(array)[3:4],
        lambda array: np.frombuffer(array.data[8:16], np.float32),
        lambda array: np.asarray(array[::2]),
    ],
)
def test_memory_of_which_anything_is_in_use_is_not(kept) -> None:
    array = blocks.empty(SIZE, np.uint8)
    array[...] = 7
    place = address(array)
    part = kept(array)
    del array
    other = blocks.empty(SIZE, np.uint8)
    other[...] = 9
    assert address(other) != place
    assert set(np.asarray(part).tobytes()) == {7}


def test_small_arrays_are_numpys_own() -> None:
    array = blocks.empty((3, 4), np.float32)
    assert array.shape == (3, 4)
    assert array.base is None


def test_no_more_is_kept_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "KEPT_BYTES", 3 * SIZE)
    arrays = [blocks.empty(SIZE, np.uint8) for _ in range(5)]
    arrays.clear()
    blocks.empty(7 * SIZE, np.uint8)  # of another size: none of them
    kept = [block.nbytes for block in blocks._blocks._free.values()]
    assert sorted(kept) == [SIZE, SIZE, SIZE, 7 * SIZE]


@given(st.lists(st.integers(0, 5), max_size=30), st.data())
def test_what_is_in_use_is_never_overwritten(sizes: list[int], data: st.DataObject) -> None:
    in_use: list[tuple[np.ndarray, int]] = []
    for number, size in enumerate(sizes):
        if in_use and data.draw(st.booleans()):
            in_use.pop(data.draw(st.integers(0, len(in_use) - 1)))
        array = blocks.empty(size * SIZE // 2 + 1, np.uint8)
        array[...] = number
        in_use.append((array, number))
    for array, number in in_use:
        assert (array == number).all()


def test_threads_share_blocks() -> None:
    wrong = []

    def work(number: int) -> None:
        for _ in range(50):
            array = blocks.empty(SIZE, np.uint8)
            array[...] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(blocks._blocks._free) <= 8  # each has the one before until it has the next
