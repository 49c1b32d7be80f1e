"""State: a model's named numpy arrays, and their form on the wire and on disk (safetensors).

Format: https://github.com/huggingface/safetensors. Sizes are checked before memory is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy

from fl_core.errors import UpdateError

State = dict[str, np.ndarray]
"""Arrays by name. Names are 1 to 256 characters; types are those of :data:`DTYPES`."""

DTYPES = frozenset(
    {"float64", "float32", "float16", "int64", "int32", "uint32", "int16", "uint8", "int8", "bool"}
)
_TYPES = frozenset(np.dtype(name) for name in DTYPES)
MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_ARRAYS = 100_000
MAX_NAME = 256


def encode(state: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as safetensors bytes; equal states give equal bytes.

    Raises UpdateError for a name or type that cannot travel.
    """
    for name, array in state.items():
        _check_array(name, array)
    # Not ascontiguousarray, which gives a scalar a dimension.
    ordered = {name: np.asarray(state[name], order="C") for name in sorted(state)}
    return safetensors.numpy.save(ordered)


def decode(data: bytes | bytearray | memoryview, max_bytes: int) -> State:
    """Arrays from safetensors bytes that came from elsewhere.

    Raises UpdateError when ``data`` is larger than ``max_bytes``, has an oversized header, or is
    not safetensors.
    """
    if len(data) > max_bytes:
        raise UpdateError(
            f"state of {len(data)} bytes is over the limit of {max_bytes}",
            "raise max_state_bytes in the run file, or make the model smaller",
        )
    header = int.from_bytes(bytes(data[:8]), "little") if len(data) >= 8 else -1
    if not 0 <= header <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise UpdateError("state is not safetensors: bad header length", "the sender is at fault")
    try:
        state = safetensors.numpy.load(bytes(data))
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UpdateError(f"state is not safetensors: {error}", "the sender is at fault") from error
    if len(state) > MAX_ARRAYS:
        raise UpdateError(f"state of {len(state)} arrays", f"at most {MAX_ARRAYS}")
    for name, array in state.items():
        _check_array(name, array)
    return state


def _check_array(name: str, array: np.ndarray) -> None:
    if not isinstance(array, np.ndarray) or array.dtype not in _TYPES:
        kind = getattr(array, "dtype", type(array).__name__)
        raise UpdateError(
            f"array {name!r} has type {kind}, which cannot travel",
            f"use numpy arrays of one of: {', '.join(sorted(DTYPES))}",
        )
    if not 1 <= len(name) <= MAX_NAME:
        raise UpdateError(f"array name of {len(name)} characters", f"use 1 to {MAX_NAME}")
    # safetensors keeps __metadata__ for itself; half a surrogate pair is no UTF-8.
    if name == "__metadata__" or any("\ud800" <= character <= "\udfff" for character in name):
        raise UpdateError(f"array name {name!r} cannot travel", "use another name")


def check_finite(state: Mapping[str, np.ndarray], what: str) -> None:
    """Raise UpdateError, naming the array, when a value is NaN or infinite."""
    for name in sorted(state):
        array = state[name]
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise UpdateError(
                f"{what}: array {name!r} has {bad} of {array.size} values that are not finite",
                "lower the learning rate, or look for missing values in the silo's data",
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


def fingerprint(state: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        digest.update(f"{name!r} {array.dtype} {state[name].shape}".encode())
        digest.update(array.data)
    return digest.digest()


def under(state: Mapping[str, np.ndarray], prefix: str) -> State:
    """The arrays whose names start with ``prefix``, named without it."""
    return {
        name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)
    }
