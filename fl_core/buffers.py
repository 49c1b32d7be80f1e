"""Bytes that lie in several places in memory, so that large arrays need not be copied together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Bytes = bytes | bytearray | memoryview


class Buffers:
    """The bytes of ``parts``, one behind the other. They must not change while this is in use."""

    def __init__(self, parts: Iterable[Bytes]) -> None:
        self.parts = tuple(parts)
        self._size = sum(map(len, self.parts))

    @classmethod
    def of(cls, data: Bytes | Buffers) -> Buffers:
        """``data``, which may lie in one place."""
        return data if isinstance(data, Buffers) else cls((data,))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)

    def cut(self, size: int) -> Iterator[bytes]:
        """Copies of ``size`` bytes each, the last one of what is left."""
        piece: list[memoryview] = []
        room = size
        for part in self.parts:
            rest = memoryview(part)
            while len(rest) >= room:
                yield b"".join((*piece, rest[:room]))
                piece, rest, room = [], rest[room:], size
            piece.append(rest)
            room -= len(rest)
        if room < size:
            yield b"".join(piece)
