"""A TCP proxy on the loopback that does to connections what networks do to them."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from fl_core.errors import TransportError

HOST = "127.0.0.1"
MOST_HELD = 1024 * 1024
"""Bytes of one direction that are held; while there are as many, nothing more is read."""
_RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: close() throws away what is queued, and sends a RST."""


@dataclass
class _Link:
    """What holds for the connections of one name."""

    server: asyncio.Server | None = None
    ends: set[_End] = field(default_factory=set)
    delay: float = 0.0
    shut_until: float = 0.0
    """Until then, by the loop's clock, whoever connects is turned away."""
    flips: int = 0
    """Pieces of which a bit is still to be changed."""


class Proxy:
    """Forwards a port for each name to one target port. All of it happens in one thread."""

    def __init__(self) -> None:
        self._target = 0
        self._links: dict[str, _Link] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    def open(self, name: str, target: int) -> int:
        """The port on which ``name`` is forwarded to ``target``; the same one when asked again.

        Raises TransportError when the system has no port left.
        """
        try:
            return self._call(self._open(name, target))
        except OSError as error:
            raise TransportError(
                f"no port for the connection of {name!r}: {error}", "end what holds so many"
            ) from error

    def cut(self, name: str, seconds: float = 0.0) -> None:
        """Reset the connections of ``name``, and turn it away for ``seconds``; inf: for ever."""
        self._call(self._cut(name, seconds))

    def delay(self, name: str, by: float) -> None:
        """Hold every byte ``by`` seconds longer, both ways and in order; less where negative."""
        self._call(self._delay(name, by))

    def flip(self, name: str) -> None:
        """Change a bit of what ``name`` sends next."""
        self._call(self._flip(name))

    def close(self) -> None:
        """Reset everything, and end the thread. Once."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # In the proxy's own thread

    async def _open(self, name: str, target: int) -> int:
        self._target = target
        link = self._links.setdefault(name, _Link())
        if link.server is None:
            link.server = await self._loop.create_server(
                lambda: _End(link, lambda: self._target), HOST, 0
            )
        return link.server.sockets[0].getsockname()[1]

    async def _cut(self, name: str, seconds: float) -> None:
        link = self._links[name]
        link.shut_until = max(link.shut_until, self._loop.time() + seconds)
        for end in tuple(link.ends):
            end.reset()

    async def _delay(self, name: str, by: float) -> None:
        self._links[name].delay = max(0.0, self._links[name].delay + by)

    async def _flip(self, name: str) -> None:
        self._links[name].flips += 1

    async def _close(self) -> None:
        for link in self._links.values():
            assert link.server is not None
            link.server.close()
            link.shut_until = float("inf")
            for end in tuple(link.ends):
                end.reset()
        dialling = asyncio.all_tasks() - {asyncio.current_task()}
        for task in dialling:
            task.cancel()
        await asyncio.gather(*dialling, return_exceptions=True)
        await asyncio.sleep(0)  # transports that were reset close their sockets


class _End(asyncio.Protocol):
    """One end of a forwarded connection; what it reads is due at the other end."""

    def __init__(self, link: _Link, dial: Callable[[], int] | None) -> None:
        """``dial`` gives the port of the other end, for the end that was accepted."""
        self._link = link
        self._dial = dial
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._other: _End | None = None
        self._held: deque[tuple[float, bytes]] = deque()
        """What is to be written at the other end, and when; no bytes: the end of the stream."""
        self._held_bytes = 0
        self._due = 0.0
        self._writable = True
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._link.ends.add(self)
        if self._loop.time() < self._link.shut_until:
            self.reset()
        elif self._dial is not None:
            transport.pause_reading()
            self._task = self._loop.create_task(self._connect(self._dial()))

    async def _connect(self, port: int) -> None:
        try:
            _, other = await self._loop.create_connection(
                lambda: _End(self._link, None), HOST, port
            )
        except OSError:  # nobody listens there
            self.reset()
            return
        self._other, other._other = other, self
        if self._transport is None or other._transport is None:  # one has gone in the meantime
            self.reset()
            return
        self._transport.resume_reading()
        other._pump()

    def data_received(self, data: bytes) -> None:
        if self._dial is not None and self._link.flips:
            self._link.flips -= 1
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        self._hold(data)
        if self._held_bytes >= MOST_HELD and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._hold(b"")
        return True  # the other direction may go on

    def _hold(self, data: bytes) -> None:
        self._due = max(self._due, self._loop.time() + self._link.delay)
        self._held.append((self._due, data))
        self._held_bytes += len(data)
        self._pump()

    def _pump(self) -> None:
        """Write what is due at the other end, as far as that takes it."""
        other = self._other
        if other is None or other._transport is None:
            return
        now = self._loop.time()
        while self._held and self._held[0][0] <= now and other._writable:
            _, data = self._held.popleft()
            self._held_bytes -= len(data)
            try:
                other._transport.write(data) if data else other._transport.write_eof()
            except OSError:  # it has been reset, and we are still to be told
                self.reset()
                return
        if self._transport is not None and self._held_bytes < MOST_HELD:
            self._transport.resume_reading()
        if self._held and self._timer is None and other._writable:
            self._timer = self._loop.call_at(self._held[0][0], self._timed)

    def _timed(self) -> None:
        self._timer = None
        self._pump()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._other is not None:
            self._other._pump()

    def reset(self) -> None:
        """End the connection at both ends, without a word more."""
        for end in (self, self._other):
            if end is not None and end._transport is not None:
                own: socket.socket = end._transport.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.ends.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._other is not None and self._other._transport is not None:
            self._other.reset()
