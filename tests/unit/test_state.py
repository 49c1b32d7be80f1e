"""State: what travels comes back as it was, and nothing else is taken."""

import json
import struct
from contextlib import suppress

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fl_core.errors import UpdateError
from fl_core.state import (
    DTYPES,
    MAX_DIMENSIONS,
    MAX_HEADER_BYTES,
    MAX_NAME,
    check_finite,
    check_same_form,
    decode,
    encode,
    under,
)

MIB = 1024 * 1024
text = st.characters(exclude_categories=["Cs"])
names = st.text(text, min_size=1, max_size=30).filter(lambda name: name != "__metadata__")
shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
states = st.dictionaries(
    names,
    st.sampled_from(sorted(DTYPES)).flatmap(lambda dtype: arrays.arrays(dtype, shapes)),
    max_size=5,
)


def raw(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(
    dtype: str = "F32", shape: tuple[int, ...] = (1,), end: int = 4, start: int = 0
) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def only_refused(data: bytes) -> None:
    """Decoding gives a state or an UpdateError, and nothing else."""
    with suppress(UpdateError):
        decode(data, MIB)


@given(states)
def test_a_state_comes_back_bit_for_bit(state):
    back = decode(encode(state), MIB)
    assert back.keys() == state.keys()
    for name, array in state.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_type_travels_as_scalar_and_as_array(dtype):
    state = {"scalar": np.array(1, dtype=dtype), "array": np.ones((2, 3), dtype=dtype)}
    check_same_form(decode(encode(state), MIB), state, "copy")


@given(states, st.randoms(use_true_random=False))
def test_equal_states_give_equal_bytes_in_any_order_of_names(state, random):
    shuffled = list(state)
    random.shuffle(shuffled)
    assert encode({name: state[name].copy() for name in shuffled}) == encode(state)


def test_layout_in_memory_changes_no_byte():
    array = np.arange(12.0).reshape(3, 4)
    for same in (np.asfortranarray(array), array[::-1][::-1], array.T.copy().T):
        assert encode({"a": same}) == encode({"a": array})


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, dtype=np.complex64),
        np.zeros(2, dtype=np.uint64),
        np.zeros(2, dtype=">f4"),
        np.array(["a"]),
        np.array([None]),
        [1.0, 2.0],
        3.0,
    ],
    ids=str,
)
def test_other_types_cannot_travel(array):
    with pytest.raises(UpdateError, match=r"array 'layer\.0' has type .*cannot travel") as caught:
        encode({"layer.0": array})
    assert "float32" in caught.value.remedy


@pytest.mark.parametrize("name", ["", "a" * (MAX_NAME + 1), "__metadata__", "half \ud800 pair"])
def test_names_that_cannot_travel_are_refused(name):
    with pytest.raises(UpdateError, match="array name"):
        encode({name: np.zeros(1)})


def test_the_longest_name_travels():
    assert list(decode(encode({"é" * MAX_NAME: np.zeros(1)}), MIB)) == ["é" * MAX_NAME]


def test_a_state_over_the_limit_is_refused_and_one_at_the_limit_is_not():
    data = encode({"a": np.zeros(100)})
    assert decode(data, len(data))["a"].size == 100
    with pytest.raises(UpdateError, match=f"state of {len(data)} bytes is over the limit"):
        decode(data, len(data) - 1)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_can_be_decoded(kind):
    assert decode(kind(encode({"a": np.ones(3)})), MIB)["a"].sum() == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 3) + b"{}",
        struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{" + b" " * MAX_HEADER_BYTES,
    ],
    ids=["empty", "short", "huge", "one too many", "over the header's limit"],
)
def test_a_header_that_lies_about_its_length_is_refused(data):
    with pytest.raises(UpdateError, match="bad header length"):
        decode(data, 64 * MIB)


@pytest.mark.parametrize(
    "data",
    [
        raw(b"[" * 5000),
        raw([]),
        raw({"a": entry(end=8)}, b"\0" * 4),
        raw({"a": entry(shape=(2,))}, b"\0" * 4),
        raw({"a": entry(shape=(2**62, 4, 0), end=0)}),
        raw({"a": entry(shape=(2**63, 0), end=0)}),
        raw({"a": entry(shape=(1,) * 65)}, b"\0" * 4),
        raw({"a": entry("BF16", end=2)}, b"\0" * 2),
        raw({"a": entry("U64", end=8)}, b"\0" * 8),
        raw({"a": entry("nonsense")}, b"\0" * 4),
        raw({"": entry()}, b"\0" * 4),
        raw({"a" * 300: entry()}, b"\0" * 4),
        raw({"a": entry()}, b"\0" * 8),
        raw({"a": entry(), "b": entry()}, b"\0" * 4),
        raw({"a": entry(), "b": entry(end=6, start=2, shape=(1,))}, b"\0" * 6),
        raw({"a": entry(), "b": entry(start=8, end=12)}, b"\0" * 12),
        raw({"a": entry(start=4, end=8)}, b"\0" * 8),
        raw({"a": entry(start=4, end=0)}, b"\0" * 4),
        raw({"a": entry(shape=(-1,), end=-4)}),
        raw({"a": entry(shape=(1.0,))}, b"\0" * 4),
        raw({"a": entry(shape=(True,))}, b"\0" * 4),
        raw({"a": entry() | {"shape": 1}}, b"\0" * 4),
        raw({"a": entry() | {"data_offsets": [0, 4, 8]}}, b"\0" * 4),
        raw({"a": entry() | {"dtype": ["F32"]}}, b"\0" * 4),
        raw({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4),
        raw({"a": entry() | {"more": 1}}, b"\0" * 4),
        raw({"a": 4}, b"\0" * 4),
        raw({"a": entry("BOOL", end=1)}, b"\x02"),
        raw({"a": entry(), "__metadata__": {"b": 1}}, b"\0" * 4),
        raw({"a": entry(), "__metadata__": []}, b"\0" * 4),
        raw(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), b"\0" * 4),
        raw(b'{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
        raw(b" " + json.dumps({"a": entry()}).encode(), b"\0" * 4),
        raw(json.dumps({"a": entry()}).encode("utf-16"), b"\0" * 4),
        raw(b'{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', b"\0" * 4),
        raw(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
        raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-0,4]}}', b"\0" * 4),
        raw(b"{" + b'"a":' * 100_000),
        raw(b'{"a":' + b"9" * 5000 + b"}"),
    ],
)
def test_bytes_that_are_no_state_are_refused(data):
    with pytest.raises(UpdateError):
        decode(data, MIB)


@given(states, st.data())
def test_a_truncated_state_is_refused(state, data):
    encoded = encode(state)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(UpdateError):
        decode(encoded[:cut], MIB)


@given(st.binary(max_size=300))
def test_garbage_raises_nothing_but_update_errors(data):
    only_refused(data)
    only_refused(raw(data))


@given(states, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6))
def test_mutated_bytes_raise_nothing_but_update_errors(state, changes):
    data = bytearray(encode(state))
    for position, value in changes:
        data[position % len(data)] = value
    only_refused(bytes(data))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_not_finite_are_counted_and_named(bad, dtype):
    state = {"good": np.zeros(2), "worse": np.array([0, bad, bad], dtype=dtype)}
    with pytest.raises(UpdateError, match="silo 'a': array 'worse' has 2 of 3 values") as caught:
        check_finite(state, "silo 'a'")
    assert "learning rate" in caught.value.remedy


def test_integers_and_empty_arrays_are_finite():
    check_finite({"i": np.arange(3), "b": np.ones(2, dtype=bool), "e": np.zeros(0)}, "state")


def test_differing_names_are_listed():
    with pytest.raises(UpdateError, match=r"missing \['b'\], unexpected \['c'\]"):
        check_same_form(
            {"a": np.zeros(1), "c": np.zeros(1)}, {"a": np.zeros(1), "b": np.zeros(1)}, "u"
        )


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((2, 3), dtype=np.float32), r"float32\[2, 3\]"),
        (np.zeros((3, 2), dtype=np.float64), r"float64\[3, 2\]"),
    ],
    ids=["shape", "type"],
)
def test_differing_forms_are_spelt_out(array, found):
    like = {"w": np.zeros((3, 2), dtype=np.float32)}
    wanted = rf"update: array 'w' is {found}, the global state's is float32\[3, 2\]"
    with pytest.raises(UpdateError, match=wanted):
        check_same_form({"w": array}, like, "update")


@given(states)
def test_a_state_has_its_own_form(state):
    check_same_form({name: array.copy() for name, array in state.items()}, state, "copy")


@given(st.dictionaries(st.sampled_from(["a/x", "a/y", "b/x", "a"]), st.just(np.ones(1))))
def test_arrays_under_a_prefix_are_named_without_it(state):
    assert set(under(state, "a/")) == {name[2:] for name in state if name.startswith("a/")}


@given(states)
def test_bytes_are_those_of_the_library(state):
    ordered = {name: np.asarray(state[name], order="C") for name in sorted(state)}
    assert encode(state) == safetensors.numpy.save(ordered)


def from_library(data: bytes) -> dict[str, np.ndarray] | None:
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return None


json_sizes = st.one_of(st.integers(0, 40), st.just(2**63), st.just(-1), st.booleans())
header_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "I8", "BOOL", "U16", "BF16", "F8_E4M3", "x"]),
        "shape": st.lists(json_sizes, max_size=3),
        "data_offsets": st.lists(json_sizes, min_size=1, max_size=3).map(sorted),
    }
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), header_entries, max_size=3),
    st.integers(0, 100),
)
def test_what_is_taken_the_library_takes_too(header, size):
    data = raw(header, bytes(size))
    with suppress(UpdateError):
        ours, theirs = decode(data, MIB), from_library(data)
        assert theirs is not None
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            assert array.dtype == theirs[name].dtype
            assert array.shape == theirs[name].shape
            assert array.tobytes() == theirs[name].tobytes()


@given(states, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3))
def test_of_mutated_bytes_too(state, changes):
    data = bytearray(encode(state))
    for position, value in changes:
        data[position % len(data)] = value
    with suppress(UpdateError):
        ours, theirs = decode(data, MIB), from_library(bytes(data))
        assert theirs is not None
        assert {name: a.tobytes() for name, a in ours.items()} == {
            name: a.tobytes() for name, a in theirs.items()
        }


def test_metadata_are_passed_over():
    data = safetensors.numpy.save({"a": np.ones(2)}, {"format": "np"})
    assert list(decode(data, MIB)) == ["a"]


def test_arrays_are_views_as_writable_as_the_bytes():
    data = bytearray(encode({"a": np.ones(3), "b": np.zeros((2, 2), np.float32)}))
    for name, array in decode(data, MIB).items():
        assert array.flags.writeable, name
        array[...] = 7
    assert {float(value) for a in decode(data, MIB).values() for value in a.flat} == {7.0}
    assert not decode(bytes(data), MIB)["a"].flags.writeable


def test_arrays_at_odd_places_are_aligned_by_a_copy():
    header = {"a": entry("I8", end=1), "b": entry(start=1, end=5)}
    array = decode(raw(header, b"\1" + np.float32(2.5).tobytes()), MIB)["b"]
    assert array.flags.aligned
    assert array.tolist() == [2.5]


def test_more_dimensions_than_numpy_has_had_do_not_travel():
    assert decode(encode({"a": np.zeros((1,) * MAX_DIMENSIONS)}), MIB)["a"].ndim == MAX_DIMENSIONS
    with pytest.raises(UpdateError, match="33 dimensions"):
        encode({"a": np.zeros((1,) * (MAX_DIMENSIONS + 1))})


@pytest.mark.parametrize("position", [0, 65_535, 65_536, 199_999])
def test_a_value_that_is_not_finite_is_found_in_any_block(position):
    array = np.zeros(200_000, np.float32)
    array[position] = np.nan
    with pytest.raises(UpdateError, match="1 of 200000"):
        check_finite({"a": array}, "state")
