"""Health: 200 or 503 over real sockets, whatever callers do."""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_core.errors import ServiceError
from fl_core.service.health import LONGEST_SILENCE_SECONDS, Health
from fl_core.service.loop import Loop

HOST = "127.0.0.1"
SOON = 4.0
"""Seconds; less than a silent caller may hold its thread."""


class Service:
    """A loop with health, and what it lacks."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.lacks = ""
        self.health = Health((HOST, 0), self.loop, lambda: self.lacks)
        self.address = (HOST, self.health.port)

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.address, timeout=SOON)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def say(self, data: bytes) -> bytes:
        """Everything that comes back for ``data``."""
        with socket.create_connection(self.address, timeout=SOON) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            found = b""
            try:
                while part := connection.recv(65536):
                    found += part
            except ConnectionResetError:  # it had not read all of it, and need not
                pass
            return found


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    """One for all tests, since ending one takes half a second."""
    service = Service()
    yield service
    service.health.stop()


@pytest.fixture
def service(running) -> Service:
    running.lacks = ""
    running.loop.last_turn = time.monotonic()
    return running


def settled() -> None:
    """Wait until every caller so far has been dealt with."""
    deadline = time.monotonic() + SOON
    while any("process_request" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_service_that_works_is_healthy_and_ready(service):
    assert service.get("/healthy") == (200, "healthy\n")
    assert service.get("/ready") == (200, "ready\n")


def test_what_is_missing_is_told_and_is_no_illness(service):
    service.lacks = "no stream to the coordinator: caf\u00e9"
    assert service.get("/ready") == (503, "no stream to the coordinator: caf\u00e9\n")
    assert service.get("/healthy") == (200, "healthy\n")


def test_a_loop_that_is_stuck_is_ill_until_it_turns_again(service):
    service.loop.last_turn -= LONGEST_SILENCE_SECONDS + 5
    status, reason = service.get("/healthy")
    assert status == 503
    assert reason.startswith("stuck for 6")
    service.loop.turn(0.0)
    assert service.get("/healthy")[0] == 200


def test_a_loop_that_waits_for_its_next_beat_is_not_stuck(service):
    service.loop.last_turn -= LONGEST_SILENCE_SECONDS - 5
    assert service.get("/healthy")[0] == 200


def test_the_answer_is_plain_text_of_a_known_length_that_names_no_version(service):
    answer = service.say(b"GET /ready HTTP/1.0\r\n\r\n")
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 ")
    assert b"Content-Type: text/plain; charset=utf-8" in head
    assert b"Content-Length: 6" in head
    assert b"Python" not in head
    assert text == b"ready\n"


paths = st.text("abcdefghijklmnopqrstuvwxyz/.?%&=-_~", max_size=20).map(lambda rest: f"/{rest}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths.filter(lambda path: path not in ("/healthy", "/ready")))
def test_any_other_path_is_not_found(service, path):
    status, text = service.get(path)
    assert status == 404
    assert text == "ask for /healthy or /ready\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "CONNECT"])
def test_only_get_is_answered(service, method):
    assert service.get("/ready", method)[0] == 501


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100))
def test_whatever_bytes_come_it_goes_on_and_prints_nothing(service, capsys, data):
    service.say(data)
    settled()
    assert service.get("/ready")[0] == 200
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("data", [b"", b"GET /hea", b"GET /healthy HTTP/1.1\r\nHost:"])
def test_a_caller_that_hangs_up_prints_no_traceback(service, capsys, data):
    for _ in range(5):
        caller = socket.create_connection(service.address, timeout=SOON)
        caller.sendall(data)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()  # with a reset
    settled()
    assert service.get("/ready")[0] == 200
    assert capsys.readouterr() == ("", "")


def test_callers_that_say_nothing_hold_nobody_up(service):
    with ExitStack() as silent:
        for said in (b"", b"G", b"GET /ready", b"GET /ready HTTP/1.0\r\n"):
            caller = silent.enter_context(socket.create_connection(service.address, timeout=SOON))
            caller.sendall(said)
        before = time.monotonic()
        assert service.get("/ready")[0] == 200
        assert time.monotonic() < before + SOON
    settled()


def test_a_burst_of_callers_finds_room(service):
    """A full queue drops a caller's first packet, which comes again after a second: that is as
    long as Kubernetes waits for an answer."""
    assert service.health._server.request_queue_size >= 32


def test_a_caller_that_says_nothing_is_dropped(service, monkeypatch):
    handler = service.health._server.RequestHandlerClass
    assert 0 < handler.timeout <= 10
    monkeypatch.setattr(handler, "timeout", 0.05)
    with socket.create_connection(service.address, timeout=SOON) as caller:
        assert caller.recv(1) == b""


def test_a_port_that_is_taken_is_named(service):
    with pytest.raises(ServiceError) as caught:
        Health(service.address, Loop(), lambda: "")
    host, port = service.address
    assert caught.value.message == f"cannot listen on {host}:{port}: Address already in use"
    assert "--health" in caught.value.remedy


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "a" * 64, "\u00e9" * 64], ids=["far", "long", "accents"]
)
def test_an_address_that_is_not_this_machines_is_named(host):
    with pytest.raises(ServiceError, match=f"cannot listen on {host}:0: "):
        Health((host, 0), Loop(), lambda: "")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_as_the_command_line_gives_it_is_listened_on():
    health = Health(("[::1]", 0), Loop(), lambda: "")
    try:
        with socket.create_connection(("::1", health.port), timeout=SOON):
            pass
    finally:
        health.stop()


def test_after_its_end_nobody_listens_and_the_port_is_free():
    one = Service()
    assert one.get("/ready")[0] == 200
    one.health.stop()
    with pytest.raises(ConnectionRefusedError):
        one.get("/ready")
    two = Health(one.address, Loop(), lambda: "")
    two.stop()
