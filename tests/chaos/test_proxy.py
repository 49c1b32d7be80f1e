"""What the proxy does to bytes and connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_core.chaos.proxy import HOST, Proxy

WAIT = 20.0


class Echo:
    """Sends back what it gets, until the end."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(end,)))
            self._threads[-1].start()

    def _answer(self, end: socket.socket) -> None:
        with end:
            try:
                while data := end.recv(65536):
                    end.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT)


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.close()


def connected(proxy: Proxy, name: str, target: int) -> socket.socket:
    return socket.create_connection((HOST, proxy.open(name, target)), WAIT)


def returned(end: socket.socket, size: int) -> bytes:
    """What comes back, of at most so many bytes."""
    data = b""
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return data


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    pieces=st.lists(st.binary(max_size=200_000), max_size=6),
    delay=st.sampled_from([0.0, 0.0, 0.01]),
)
def test_bytes_arrive_whole_and_in_order_both_ways(
    proxy: Proxy, echo: Echo, pieces: list[bytes], delay: float
) -> None:
    with connected(proxy, "north", echo.port) as end:
        proxy.delay("north", delay)
        sender = threading.Thread(
            target=lambda: ([end.sendall(piece) for piece in pieces], end.shutdown(socket.SHUT_WR))
        )
        sender.start()
        assert returned(end, 2**30) == b"".join(pieces)
        sender.join()
        proxy.delay("north", -delay)


def test_more_than_it_holds_is_read_when_there_is_room(proxy: Proxy, echo: Echo) -> None:
    data = bytes(range(256)) * 40_000
    with connected(proxy, "north", echo.port) as end:
        proxy.delay("north", 0.02)
        sender = threading.Thread(target=end.sendall, args=(data,))
        sender.start()
        assert returned(end, len(data)) == data
        sender.join()


def test_a_cut_resets_the_connections_of_one_name(proxy: Proxy, echo: Echo) -> None:
    with (
        connected(proxy, "north", echo.port) as north,
        connected(proxy, "south", echo.port) as south,
    ):
        for end in (north, south):
            end.sendall(b"x")
            assert returned(end, 1) == b"x"
        proxy.cut("north")
        with pytest.raises(ConnectionResetError):
            north.recv(1)
        south.sendall(b"y")
        assert returned(south, 1) == b"y"
    with connected(proxy, "north", echo.port) as again:
        again.sendall(b"z")
        assert returned(again, 1) == b"z"


def is_turned_away(proxy: Proxy, name: str, target: int) -> bool:
    """Whether a connection is reset as it is made, or just after."""
    with socket.socket() as end:
        end.settimeout(WAIT)
        try:
            end.connect((HOST, proxy.open(name, target)))
            end.recv(1)
        except ConnectionResetError:
            return True
    return False


def test_who_is_shut_out_is_turned_away(proxy: Proxy, echo: Echo) -> None:
    proxy.open("north", echo.port)
    proxy.cut("north", float("inf"))
    assert is_turned_away(proxy, "north", echo.port)


def test_without_a_target_a_connection_is_reset(proxy: Proxy) -> None:
    with socket.create_server((HOST, 0)) as gone:
        port = gone.getsockname()[1]
    assert is_turned_away(proxy, "north", port)


def test_the_end_of_the_target_is_passed_on(proxy: Proxy) -> None:
    with (
        socket.create_server((HOST, 0)) as listener,
        connected(proxy, "north", listener.getsockname()[1]) as end,
    ):
        near, _ = listener.accept()
        near.sendall(b"last")
        near.close()
        assert returned(end, 100) == b"last"


def test_a_delay_holds_bytes(proxy: Proxy, echo: Echo) -> None:
    with connected(proxy, "north", echo.port) as end:
        proxy.delay("north", 0.05)
        start = time.monotonic()
        end.sendall(b"x")
        assert returned(end, 1) == b"x"
        assert time.monotonic() - start >= 0.1  # there and back: never less, however slow this is


def test_one_bit_is_changed(proxy: Proxy, echo: Echo) -> None:
    with connected(proxy, "north", echo.port) as end:
        end.sendall(b"\0\0\0")
        assert returned(end, 3) == b"\0\0\0"
        proxy.flip("north")
        end.sendall(b"\0\0\0")
        assert returned(end, 3) == b"\0\1\0"
        end.sendall(b"\0\0\0")
        assert returned(end, 3) == b"\0\0\0"
