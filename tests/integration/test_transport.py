"""Server and client on loopback sockets: who is let in, what is carried, what happens on loss."""

from __future__ import annotations

import copy
import datetime as dt
import queue
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from fl_core.errors import TransportError
from fl_core.transport import channel, places
from fl_core.transport.authority import Authority
from fl_core.transport.channel import Event, Joined, Left, Received
from fl_core.transport.client import AGGREGATOR, Client
from fl_core.transport.frames import SMALL_BYTES, Frame, chunks, run_tag
from fl_core.transport.identity import Identity, server_name
from fl_core.transport.server import Server

FEDERATION, HOST, RUN = "trial", "127.0.0.1", "run-1"
MIB = 1024 * 1024
WAIT = 30.0
"""Seconds until a test gives up on an event; none waits that long when all is well."""
SHORT = 0.3
"""Patience of clients that are meant to lose it."""


class Party:
    """A server or client, and the events that it has told."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def next(self) -> Event:
        return self.events.get(timeout=WAIT)

    def until(self, kind: type[Event], **fields: object) -> list[Event]:
        """Events up to the first of this kind with these fields."""
        seen: list[Event] = []
        while True:
            seen.append(self.next())
            event = seen[-1]
            if isinstance(event, kind) and all(getattr(event, k) == v for k, v in fields.items()):
                return seen

    def frame(self) -> Frame:
        event = self.next()
        assert isinstance(event, Received), event
        return event.frame


class Listening(Party):
    def __init__(self, identity: Identity, silos: list[str], limit: int) -> None:
        super().__init__()
        self.server = Server(
            identity, FEDERATION, silos.__contains__, len(silos), RUN, limit, self.events.put
        )

    def start(self, port: int = 0) -> int:
        self.port = self.server.start(HOST, port)
        return self.port


class Dialling(Party):
    def __init__(self, identity: Identity, run: str, limit: int, patience: float) -> None:
        super().__init__()
        self.client = Client(identity, FEDERATION, run, limit, self.events.put, patience)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(FEDERATION, dt.timedelta(hours=1))


@pytest.fixture(scope="module")
def aggregator(authority) -> Identity:
    return authority.aggregator([HOST])


@pytest.fixture(scope="module")
def silo(authority) -> Identity:
    return authority.silo("a")


@pytest.fixture
def listen(aggregator) -> Iterator[Callable[..., Listening]]:
    made: list[Listening] = []

    def start(identity: Identity = aggregator, port: int = 0, limit: int = 64 * MIB) -> Listening:
        made.append(Listening(identity, ["a", "b"], limit))
        made[-1].start(port)
        return made[-1]

    yield start
    for party in made:
        party.server.stop(0)


@pytest.fixture
def dial(silo, listen) -> Iterator[Callable[..., Dialling]]:
    made: list[Dialling] = []

    def start(
        port: int,
        identity: Identity = silo,
        run: str = RUN,
        limit: int = 64 * MIB,
        patience: float = WAIT,
    ) -> Dialling:
        made.append(Dialling(identity, run, limit, patience))
        made[-1].client.start(HOST, port)
        return made[-1]

    yield start
    for party in made:
        party.client.stop()


@pytest.fixture
def pair(listen, dial) -> tuple[Listening, Dialling]:
    """A server and a silo whose stream stands."""
    listening = listen()
    dialling = dial(listening.port)
    assert listening.next() == Joined("a")
    assert dialling.next() == Joined(AGGREGATOR)
    return listening, dialling


def kept_out(listening: Listening, dialling: Dialling, reason: str) -> None:
    """The client gives up for this reason, and the server never knew of it."""
    last = dialling.until(Left, refused=True)[-1]
    assert reason in last.reason
    assert listening.events.empty()


def test_a_stream_on_which_nothing_is_said_stands(listen, dial, monkeypatch):
    # A server that thinks the heartbeats too many ends the stream at the fourth.
    monkeypatch.setattr(channel, "OPTIONS", channel.options(heartbeat=0.3))
    listening = listen()
    dialling = dial(listening.port)
    assert isinstance(dialling.next(), Joined)
    with pytest.raises(queue.Empty):
        dialling.events.get(timeout=5)
    dialling.client.send(Frame(1))
    listening.until(Received)


def test_frames_travel_both_ways_in_order(pair):
    listening, dialling = pair
    frames = [Frame(i, i, {"n": i}, bytes([i]) * i) for i in range(1, 20)]
    for frame in frames:
        listening.server.send("a", frame)
        dialling.client.send(frame)
    assert [dialling.frame() for _ in frames] == frames
    assert [listening.frame() for _ in frames] == frames


def test_a_large_state_travels_both_ways(pair):
    listening, dialling = pair
    frame = Frame(1, 2, {}, bytes(range(256)) * (5 * MIB // 256))
    listening.server.send("a", frame)
    received = dialling.frame()
    assert received == frame
    dialling.client.send(received)
    assert listening.frame() == frame


def test_each_silo_gets_its_own_frames_and_is_known_by_certificate(listen, dial, authority):
    listening = listen()
    silos = {name: dial(listening.port, authority.silo(name)) for name in ("a", "b")}
    assert {listening.next(), listening.next()} == {Joined("a"), Joined("b")}
    for name, party in silos.items():
        assert party.next() == Joined(AGGREGATOR)
        listening.server.send(name, Frame(1, 0, {"for": name}))
        assert party.frame().meta == {"for": name}
        party.client.send(Frame(1, 0, {"sender": "someone else"}))
        assert listening.next() == Received(name, Frame(1, 0, {"sender": "someone else"}))


def test_a_frame_for_a_silo_without_a_stream_is_dropped(pair):
    listening, _ = pair
    listening.server.send("b", Frame(1))
    listening.server.send("nobody", Frame(1))
    assert listening.events.empty()


def test_the_server_sends_what_is_queued_before_it_stops(pair):
    listening, dialling = pair
    frame = Frame(1, 0, {}, bytes(3 * MIB))
    listening.server.send("a", frame)
    listening.server.stop(WAIT)
    assert dialling.frame() == frame
    assert isinstance(dialling.next(), Left)


def test_a_client_sends_what_is_queued_before_it_stops(pair):
    listening, dialling = pair
    frame = Frame(1, 0, {}, bytes(3 * MIB))
    dialling.client.send(frame)
    dialling.client.stop()
    assert listening.frame() == frame
    assert listening.next() == Left("a", "stream ended")
    assert dialling.events.empty()


def test_a_client_that_was_never_started_can_be_stopped(silo):
    Dialling(silo, RUN, MIB, WAIT).client.stop()


def test_a_silo_that_is_refused_while_it_is_let_in_does_not_stay(listen, dial):
    listening = listen()
    refusals: list[threading.Thread] = []

    def admits(silo: str) -> bool:
        """True, for the last time."""
        if refusals:
            return False
        refusals.append(
            threading.Thread(target=listening.server.refuse, args=(silo, "set aside"), daemon=True)
        )
        refusals[0].start()
        refusals[0].join(0.5)  # it may be done, or wait until the stream is known
        return True

    listening.server._admits = admits
    dialling = dial(listening.port)
    assert dialling.until(Left, refused=True)[-1].reason == "INVALID_ARGUMENT: set aside"
    listening.until(Left)


def test_a_certificate_of_another_authority_is_refused(listen, dial, authority):
    foreign = Authority(FEDERATION, dt.timedelta(hours=1)).silo("a")
    listening = listen()
    posing = dial(listening.port, replace(foreign, authority=authority.certificate), patience=SHORT)
    kept_out(listening, posing, "not reached for")


def test_an_aggregator_of_another_authority_is_not_trusted(listen, dial, silo):
    other = Authority(FEDERATION, dt.timedelta(hours=1))
    posing = replace(other.aggregator([HOST]), authority=silo.authority)
    listening = listen(posing)
    kept_out(listening, dial(listening.port, patience=SHORT), "not reached for")


def test_a_silo_cannot_pose_as_the_aggregator(listen, dial, authority):
    listening = listen(authority.silo("b"))
    kept_out(listening, dial(listening.port, patience=SHORT), "not reached for")


def test_an_aggregator_cannot_pose_as_a_silo(listen, dial, aggregator):
    listening = listen()
    kept_out(listening, dial(listening.port, aggregator, patience=SHORT), "")


def test_a_certificate_of_another_federation_is_refused_at_once(listen, dial, authority):
    other = copy.copy(authority)
    other.federation = "other"
    listening = listen()
    kept_out(listening, dial(listening.port, other.silo("a")), "PERMISSION_DENIED")


def test_a_silo_that_is_not_in_the_run_is_refused_at_once(listen, dial, authority):
    listening = listen()
    kept_out(listening, dial(listening.port, authority.silo("c")), "PERMISSION_DENIED")


def test_an_expired_certificate_is_refused(listen, dial, authority):
    past = copy.copy(authority)
    past._valid = -dt.timedelta(minutes=1)
    listening = listen()
    kept_out(listening, dial(listening.port, past.silo("a"), patience=SHORT), "not reached for")


def test_a_stream_without_tls_is_refused(listen):
    listening = listen()
    with grpc.insecure_channel(f"{HOST}:{listening.port}") as plain:
        call = plain.stream_stream(channel.path(channel.STREAM))(iter(()))
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert listening.events.empty()


@pytest.fixture
def tls(silo, tmp_path) -> ssl.SSLContext:
    """A context of Python's own TLS that trusts the authority and offers every cipher."""
    (tmp_path / "ca.pem").write_bytes(silo.authority)
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def show_certificate(context: ssl.SSLContext, identity: Identity, folder: Path) -> None:
    (folder / "cert.pem").write_bytes(identity.certificate)
    (folder / "key.pem").touch(mode=0o600)
    (folder / "key.pem").write_bytes(identity.key)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")


def handshake(context: ssl.SSLContext, port: int) -> tuple[str | None, bytes]:
    """TLS's version and the first byte that the server says: HTTP/2's settings."""
    with (
        socket.create_connection((HOST, port), timeout=WAIT) as plain,
        context.wrap_socket(plain, server_hostname=server_name(FEDERATION)) as secured,
    ):
        return secured.version(), secured.recv(1)


def test_tls_1_3_is_spoken(listen, tls, silo, tmp_path):
    show_certificate(tls, silo, tmp_path)
    version, settings = handshake(tls, listen().port)
    assert (version, len(settings)) == ("TLSv1.3", 1)


def test_tls_1_2_is_refused(listen, tls, silo, tmp_path):
    show_certificate(tls, silo, tmp_path)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        handshake(tls, listen().port)


@pytest.mark.parametrize("module", ["server", "client", "channel"])
def test_tls_1_2_is_ruled_out_before_grpc_is_imported(module):
    """gRPC reads its cipher suites when it is imported, and never again."""
    code = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'grpc':\n"
        "            assert 'RSA' in os.environ['GRPC_SSL_CIPHER_SUITES']\n"
        "sys.meta_path.insert(0, Watch())\n"
        "os.environ.pop('GRPC_SSL_CIPHER_SUITES', None)\n"
        f"import fl_core.transport.{module}\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)


def test_a_client_without_a_certificate_is_refused(listen, tls):
    listening = listen()
    try:
        _, settings = handshake(tls, listening.port)
    except OSError:  # an alert, or a closed connection
        settings = b""
    assert settings == b""
    assert listening.events.empty()


def test_a_port_that_is_taken_is_an_error_at_once(aggregator):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TransportError, match=f"cannot listen on {HOST}:{port}") as caught:
            Listening(aggregator, ["a"], MIB).start(port)
    assert "--port" in caught.value.remedy


def test_two_servers_do_not_share_a_port(listen):
    with pytest.raises(TransportError, match="cannot listen"):
        listen(port=listen().port)


def test_the_server_listens_on_the_given_address_only(listen):
    port = listen().port
    with pytest.raises(OSError, match=r".+"):
        socket.create_connection(("127.0.0.2", port), timeout=WAIT)


def test_a_client_gives_up_on_a_server_that_is_gone(listen, dial):
    listening = listen()
    dialling = dial(listening.port, patience=SHORT)
    assert dialling.next() == Joined(AGGREGATOR)
    listening.server.stop(0)
    *lost, last = dialling.until(Left, refused=True)
    assert all(isinstance(event, Left) and not event.refused for event in lost)
    assert lost
    assert last.reason.startswith(f"{HOST}:{listening.port} not reached for")


def test_a_client_gives_up_where_nobody_listens(dial):
    with socket.create_server((HOST, 0)) as unused:
        port = unused.getsockname()[1]
    dialling = dial(port, patience=SHORT)
    assert "not reached" in dialling.until(Left, refused=True)[-1].reason


def test_a_client_comes_back_to_a_server_that_was_restarted(pair, listen):
    first, dialling = pair
    first.server.stop(0)
    assert dialling.until(Left)[-1].refused is False
    second = listen(port=first.port)
    assert second.next() == Joined("a")
    dialling.until(Joined)
    second.server.send("a", Frame(7))
    assert dialling.frame().kind == 7
    dialling.client.send(Frame(8))
    assert second.frame().kind == 8


@pytest.fixture
def first_stream(silo) -> Iterator[Callable[[int], grpc.Call]]:
    """A bare stream of silo a's, that does not dial again when it is lost."""
    closing: list[Callable[[], None]] = []

    def start(port: int) -> grpc.Call:
        requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        credentials = grpc.ssl_channel_credentials(silo.authority, silo.key, silo.certificate)
        name = ("grpc.ssl_target_name_override", server_name(FEDERATION))
        opened = grpc.secure_channel(f"{HOST}:{port}", credentials, options=[name])
        closing.extend([lambda: requests.put(None), opened.close])
        call = opened.stream_stream(channel.path(channel.STREAM))(iter(requests.get, None))
        call.initial_metadata()
        return call

    yield start
    for close in closing:
        close()


def test_a_silos_second_stream_takes_the_place_of_its_first(listen, dial, first_stream):
    listening = listen()
    first = first_stream(listening.port)
    assert listening.next() == Joined("a")
    second = dial(listening.port)
    assert second.next() == Joined(AGGREGATOR)
    assert listening.next() == Joined("a")
    with pytest.raises(grpc.RpcError) as caught:
        next(first)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    listening.server.send("a", Frame(5))
    assert second.frame().kind == 5
    second.client.send(Frame(6))
    assert listening.frame().kind == 6


def test_streams_that_are_not_read_do_not_keep_others_out(listen, first_stream, dial, authority):
    listening = listen()
    unread = []
    for _ in range(8):  # each takes the place of the one before, which has something to read
        unread.append(first_stream(listening.port))
        assert listening.next() == Joined("a")
        listening.server.send("a", Frame(1, 0, {}, bytes(8 * MIB)))
    other = dial(listening.port, authority.silo("b"))
    assert other.next() == Joined(AGGREGATOR)
    for call in unread[:-2]:
        with pytest.raises(grpc.RpcError):
            list(call)
        assert call.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(grpc.RpcError):
        list(unread[-2])
    assert unread[-2].code() is grpc.StatusCode.ABORTED


def test_a_silo_that_goes_away_is_told_as_left(listen, first_stream):
    listening = listen()
    first = first_stream(listening.port)
    assert listening.next() == Joined("a")
    first.cancel()
    left = listening.next()
    assert isinstance(left, Left)
    assert (left.peer, left.refused) == ("a", False)


def test_a_frame_that_is_too_large_for_the_server_ends_the_stream(listen, dial):
    listening = listen(limit=1000)
    dialling = dial(listening.port)
    assert listening.next() == Joined("a")
    dialling.until(Joined)
    dialling.client.send(Frame(1, 0, {}, bytes(1001)))
    left = listening.next()
    assert left == Left("a", "state of 1001 bytes is over the limit of 1000", refused=True)
    last = dialling.until(Left)[-1]
    assert last.refused
    assert "over the limit of 1000" in last.reason


def test_a_frame_that_is_too_large_for_the_client_ends_the_stream(listen, dial):
    listening = listen()
    dialling = dial(listening.port, limit=1000)
    assert listening.next() == Joined("a")
    dialling.until(Joined)
    listening.server.send("a", Frame(1, 0, {}, bytes(1001)))
    last = dialling.until(Left)[-1]
    assert last.refused
    assert "over the limit of 1000" in last.reason
    assert listening.until(Left)[-1].peer == "a"


def test_frames_of_another_run_end_the_stream(listen, dial):
    listening = listen()
    dialling = dial(listening.port, run="run-2")
    assert listening.next() == Joined("a")
    dialling.until(Joined)
    dialling.client.send(Frame(1))
    assert listening.next() == Left("a", "refused: a frame of another run", refused=True)
    assert dialling.until(Left)[-1].refused


def test_bytes_that_are_no_frame_end_the_stream(listen, silo):
    listening = listen()
    credentials = grpc.ssl_channel_credentials(silo.authority, silo.key, silo.certificate)
    name = ("grpc.ssl_target_name_override", server_name(FEDERATION))
    with grpc.secure_channel(f"{HOST}:{listening.port}", credentials, options=[name]) as opened:
        call = opened.stream_stream(channel.path(channel.STREAM))(iter([b"garbage" * 100]))
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [type(event) for event in listening.until(Left, refused=True)] == [Joined, Left]


def test_a_message_over_a_chunk_is_not_even_read(listen, silo):
    listening = listen()
    credentials = grpc.ssl_channel_credentials(silo.authority, silo.key, silo.certificate)
    name = ("grpc.ssl_target_name_override", server_name(FEDERATION))
    with grpc.secure_channel(f"{HOST}:{listening.port}", credentials, options=[name]) as opened:
        call = opened.stream_stream(channel.path(channel.STREAM))(iter([bytes(2 * MIB)]))
        with pytest.raises(grpc.RpcError):
            next(call)
    assert [type(event) for event in listening.until(Left)] == [Joined, Left]


def told(listening: Listening, on_event: Callable[[Event], None]) -> None:
    """Have the server tell ``on_event`` what it is told, before a test sees it."""

    def tell(event: Event) -> None:
        on_event(event)
        listening.events.put(event)

    listening.server._on_event = tell


def keep(event: Event) -> None:
    if isinstance(event, Received) and event.place is not None:
        event.place.keep()


@pytest.fixture
def small_room(monkeypatch) -> None:
    """Room for two large frames."""
    monkeypatch.setattr(places, "ROOM_BYTES", 0)
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.05)


LARGE = Frame(1, state=bytes(SMALL_BYTES + 1))


def test_a_large_frame_waits_until_another_has_been_handled(pair, small_room):
    listening, dialling = pair
    told(listening, keep)
    for number in range(4):
        dialling.client.send(replace(LARGE, round=number))
    first, second = listening.next(), listening.next()
    with pytest.raises(queue.Empty):
        listening.events.get(timeout=0.3)
    second.place.free()
    third = listening.next()
    first.place.free()
    assert [event.frame.round for event in (first, second, third, listening.next())] == [0, 1, 2, 3]


def test_frames_that_are_not_kept_give_their_places_back(pair, small_room):
    listening, dialling = pair
    for number in range(20):
        dialling.client.send(replace(LARGE, round=number))
    assert [listening.frame().round for _ in range(20)] == list(range(20))


def test_small_frames_take_no_place(pair, small_room):
    listening, dialling = pair
    told(listening, keep)
    frames = [Frame(1, number, {}, bytes(SMALL_BYTES)) for number in range(10)]
    for frame in frames:
        dialling.client.send(frame)
    assert [listening.frame() for _ in frames] == frames


def test_a_stream_that_ends_in_a_frame_gives_its_place_back(listen, dial, authority, small_room):
    listening = listen()
    for _ in range(3):
        half = half_a_frame(authority.silo("b"), listening.port)
        next(half)
        listening.until(Joined)
        half.close()
        listening.until(Left)
    dialling = dial(listening.port)
    listening.until(Joined)
    dialling.until(Joined)
    dialling.client.send(replace(LARGE, state=bytes(2 * MIB)))
    assert len(listening.frame().state) == 2 * MIB


def test_who_stands_still_while_others_wait_is_cut(
    listen, dial, authority, small_room, monkeypatch
):
    monkeypatch.setattr(places, "CHUNK_SECONDS", 0.2)
    listening = listen()
    told(listening, keep)
    dialling = dial(listening.port)
    listening.until(Joined)
    dialling.until(Joined)
    half = half_a_frame(authority.silo("b"), listening.port)
    next(half)
    listening.until(Joined)
    for number in range(2):
        dialling.client.send(replace(LARGE, round=number, state=bytes(2 * MIB)))
    seen = listening.until(Received, peer="a", frame=Frame(1, 1, {}, bytes(2 * MIB)))
    left = [event for event in seen if isinstance(event, Left)]
    half.close()
    assert [(event.peer, event.refused) for event in left] == [("b", True)], left
    assert "no chunk for" in left[0].reason


def half_a_frame(identity: Identity, port: int) -> Iterator[None]:
    """A stream on which the first of two chunks is sent, and then nothing."""
    first = next(iter(chunks(Frame(1, state=bytes(2 * MIB)), run_tag(RUN))))
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    requests.put(first)
    credentials = grpc.ssl_channel_credentials(
        identity.authority, identity.key, identity.certificate
    )
    name = ("grpc.ssl_target_name_override", server_name(FEDERATION))
    with grpc.secure_channel(f"{HOST}:{port}", credentials, options=[name]) as opened:
        call = opened.stream_stream(channel.path(channel.STREAM))(iter(requests.get, None))
        call.initial_metadata()
        try:
            yield
        finally:
            call.cancel()
            requests.put(None)


def test_a_silo_that_does_not_read_is_cut(listen, first_stream):
    listening = listen()
    unread = first_stream(listening.port)
    assert listening.next() == Joined("a")
    for number in range(3):
        listening.server.send("a", Frame(1, number, {}, bytes(20 * MIB)))
    assert listening.next() == Left("a", "the silo does not read what it is sent")
    with pytest.raises(grpc.RpcError):
        list(unread)


def test_a_client_whose_server_does_not_read_dials_anew(pair):
    listening, dialling = pair
    gate = threading.Event()
    told(listening, lambda event: isinstance(event, Received) and gate.wait(WAIT))
    for number in range(4):
        dialling.client.send(Frame(1, number, {}, bytes(20 * MIB)))
    left = dialling.next()
    gate.set()
    assert isinstance(left, Left)
    assert not left.refused
    assert dialling.next() == Joined(AGGREGATOR)


def test_two_processes_with_one_silos_certificate_do_not_evict_each_other_for_ever(listen, dial):
    listening = listen()
    first = dial(listening.port)
    assert first.next() == Joined(AGGREGATOR)
    second = dial(listening.port)
    assert second.next() == Joined(AGGREGATOR)
    left = first.next()
    assert isinstance(left, Left)
    assert left.refused
    assert "another process" in left.reason
    listening.server.send("a", Frame(5))
    assert second.frame().kind == 5


def test_grpc_imported_before_fl_core_is_refused(monkeypatch, aggregator):
    monkeypatch.setattr("fl_core.transport.channel.GRPC_CAME_FIRST", True)
    with pytest.raises(TransportError, match="before fl_core"):
        Server(aggregator, "f", {"a"}.__contains__, 1, "run", 1000, print)
