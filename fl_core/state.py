"""State: a model's named numpy arrays, and their form on the wire and on disk (safetensors).

Format: https://github.com/huggingface/safetensors. Sizes are checked before memory is taken.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fl_core.buffers import Buffers
from fl_core.errors import UpdateError

State = dict[str, np.ndarray]
"""Arrays by name. Names are 1 to 256 characters; types are those of :data:`DTYPES`."""

_CODES = {
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "float16": "F16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""safetensors' names of numpy's types, in the order in which its own library lays out arrays."""
DTYPES = frozenset(_CODES)
_CODE_OF = {np.dtype(name): code for name, code in _CODES.items()}
_TYPE_OF = {code: dtype for dtype, code in _CODE_OF.items()}
_PLACE = {dtype: place for place, dtype in enumerate(_CODE_OF)}
_LENGTH_BYTES = 8
_CACHED_HEADER = 64 * 1024
MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_ARRAYS = 100_000
MAX_NAME = 256
_BLOCK = 1 << 16
MAX_DIMENSIONS = 32
"""numpy's own limit, before its version 2."""


def encode(state: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as safetensors bytes; equal states give equal bytes.

    They are the bytes that the safetensors library writes. Raises UpdateError for a name or type
    that cannot travel.
    """
    return bytes(laid_out(state))


def laid_out(state: Mapping[str, np.ndarray]) -> Buffers:
    """As :func:`encode`, but the arrays stay where they are, and must not change meanwhile."""
    for name, array in state.items():
        _check_array(name, array)
    header: dict[str, Any] = {}
    parts: list[memoryview] = []
    end = 0
    for name in sorted(state, key=lambda name: (_PLACE[state[name].dtype], name)):
        array = state[name]
        start, end = end, end + array.nbytes
        code, shape = _CODE_OF[array.dtype], list(array.shape)
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
        parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # arrays begin where their types want them
    return Buffers((len(text).to_bytes(_LENGTH_BYTES, "little") + text, *parts))


def decode(data: bytes | bytearray | memoryview, max_bytes: int) -> State:
    """Arrays from safetensors bytes that came from elsewhere.

    They are views of ``data``, as writable as it is. Raises UpdateError when ``data`` is larger
    than ``max_bytes``, has an oversized header, or is not safetensors.
    """
    if len(data) > max_bytes:
        raise UpdateError(
            f"state of {len(data)} bytes is over the limit of {max_bytes}",
            "raise max_state_bytes in the run file, or make the model smaller",
        )
    view = memoryview(data)
    length = int.from_bytes(view[:_LENGTH_BYTES], "little") if len(view) >= _LENGTH_BYTES else -1
    if not 0 <= length <= min(MAX_HEADER_BYTES, len(view) - _LENGTH_BYTES):
        raise _malformed("bad header length")
    start = _LENGTH_BYTES + length
    header, body = bytes(view[_LENGTH_BYTES:start]), view[start:]
    entries, end = _layout(header) if length > _CACHED_HEADER else _cached_layout(header)
    if end != len(body):
        raise _malformed(f"arrays of {end} bytes in {len(body)}")
    return {entry.name: _array(entry, body) for entry in entries}


class _Entry(NamedTuple):
    """What the header says of one array."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    end: int


def _layout(header: bytes) -> tuple[tuple[_Entry, ...], int]:
    """The header's arrays, and how many bytes they have: one behind the other, without a gap."""
    try:
        found = json.loads(header.decode(), object_pairs_hook=_unique, parse_int=_natural)
    except (ValueError, RecursionError) as error:
        raise _malformed("its header is not JSON") from error
    if not (header.startswith(b"{") and isinstance(found, dict)):
        raise _malformed("its header is no JSON object")
    metadata = found.pop("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())):
        raise _malformed("its metadata are no texts")
    if len(found) > MAX_ARRAYS:
        raise UpdateError(f"state of {len(found)} arrays", f"at most {MAX_ARRAYS}")
    entries = [_entry(name, fields) for name, fields in found.items()]
    end = 0
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.start != end:
            raise _malformed(f"array {entry.name!r} does not begin where another ends")
        end = entry.end
    return tuple(entries), end


_cached_layout = lru_cache(maxsize=8)(_layout)
"""Silos' updates have the same header, all but ever."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _natural(text: str) -> int:
    if text.startswith("-"):  # also -0, which other readers take for a float
        raise ValueError("a size is negative")
    return int(text)


def _entry(name: str, fields: Any) -> _Entry:
    _check_name(name)
    if not (isinstance(fields, dict) and fields.keys() == {"dtype", "shape", "data_offsets"}):
        raise _malformed(f"array {name!r} is described by something else")
    code, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    dtype = _TYPE_OF.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise UpdateError(
            f"array {name!r} has type {code!r:.80}, which cannot travel",
            f"use numpy arrays of one of: {', '.join(sorted(DTYPES))}",
        )
    if not (_sizes(shape) and _sizes(offsets) and len(offsets) == 2):
        raise _malformed(f"array {name!r} has no valid shape or place")
    # The empty dimensions of an array say nothing of its others, which numpy multiplies as well.
    most = math.prod(side or 1 for side in shape) * dtype.itemsize
    size = 0 if 0 in shape else most
    if len(shape) > MAX_DIMENSIONS or most >= 2**63 or offsets[1] - offsets[0] != size:
        raise _malformed(f"array {name!r} has {size} bytes, or too many dimensions")
    return _Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and each < 2**63 for each in value)


def _array(entry: _Entry, body: memoryview) -> np.ndarray:
    count = (entry.end - entry.start) // entry.dtype.itemsize
    if not count:
        return np.empty(entry.shape, entry.dtype)
    array = np.frombuffer(body, entry.dtype, count, entry.start)
    if entry.dtype == np.bool_ and (array.view(np.uint8) > 1).any():
        raise _malformed(f"array {entry.name!r} has truth values that are neither 0 nor 1")
    if not array.flags.aligned:  # not laid out by encode
        array = array.copy()
    return array.reshape(entry.shape)


def _malformed(what: str) -> UpdateError:
    return UpdateError(f"state is not safetensors: {what}", "the sender is at fault")


def _check_array(name: str, array: np.ndarray) -> None:
    if not isinstance(array, np.ndarray) or array.dtype not in _CODE_OF:
        kind = getattr(array, "dtype", type(array).__name__)
        raise UpdateError(
            f"array {name!r} has type {kind}, which cannot travel",
            f"use numpy arrays of one of: {', '.join(sorted(DTYPES))}",
        )
    if array.ndim > MAX_DIMENSIONS:
        raise UpdateError(
            f"array {name!r} has {array.ndim} dimensions", f"at most {MAX_DIMENSIONS}"
        )
    _check_name(name)


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= MAX_NAME:
        raise UpdateError(f"array name of {len(name)} characters", f"use 1 to {MAX_NAME}")
    # safetensors keeps __metadata__ for itself; half a surrogate pair is no UTF-8.
    if name == "__metadata__" or (not name.isascii() and _has_surrogate(name)):
        raise UpdateError(f"array name {name!r} cannot travel", "use another name")


def _has_surrogate(name: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in name)


def check_finite(state: Mapping[str, np.ndarray], what: str) -> None:
    """Raise UpdateError, naming the array, when a value is NaN or infinite."""
    for name in sorted(state):
        array = state[name]
        if array.dtype.kind == "f" and not _all_finite(array):
            bad = int(array.size - np.isfinite(array).sum())
            raise UpdateError(
                f"{what}: array {name!r} has {bad} of {array.size} values that are not finite",
                "lower the learning rate, or look for missing values in the silo's data",
            )


def _all_finite(array: np.ndarray) -> bool:
    flat = array.reshape(-1)
    # In blocks that stay in the processor's cache, as what is found of them does.
    return all(
        np.isfinite(flat[start : start + _BLOCK]).all() for start in range(0, flat.size, _BLOCK)
    )


def check_same_form(
    state: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray], what: str
) -> None:
    """Raise UpdateError when names, shapes or types differ from those of ``like``."""
    if state.keys() != like.keys():
        missing, extra = sorted(like.keys() - state.keys()), sorted(state.keys() - like.keys())
        raise UpdateError(
            f"{what}: arrays differ from the global state's: missing {missing}, unexpected {extra}",
            "every silo must run the same version of the model plugin",
        )
    for name, array in state.items():
        wanted = like[name]
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            raise UpdateError(
                f"{what}: array {name!r} is {array.dtype}{list(array.shape)}, "
                f"the global state's is {wanted.dtype}{list(wanted.shape)}",
                "every silo must run the same version and parameters of the model plugin",
            )


def check_floating(state: Mapping[str, np.ndarray], what: str, taker: str) -> None:
    """Raise UpdateError, naming the array, when one is of another kind than floating point."""
    for name, array in state.items():
        if array.dtype.kind != "f":
            raise UpdateError(
                f"{what}: array {name!r} is {array.dtype}; {taker} takes floating point only",
                "leave counters out of the model's state",
            )


def fingerprint(state: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        digest.update(f"{name!r} {array.dtype.str} {state[name].shape}".encode())
        digest.update(array.data)
    return digest.digest()


def under(state: Mapping[str, np.ndarray], prefix: str) -> State:
    """The arrays whose names start with ``prefix``, named without it."""
    return {
        name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)
    }
