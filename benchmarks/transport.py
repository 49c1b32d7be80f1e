"""What a round costs on the wire: ``python -m benchmarks.transport [--sizes tiny 1 10 100]``.

The raw floor, bytes over mTLS that a server adds up as they arrive, and this project's round, the
same sizes in turn: state sent, updates decoded, checked and added by fedavg, the next state made
and encoded. Silos are processes that send back what came. Prints milliseconds of a round, the
server's CPU time and peak memory, and the ratio.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fl_core import state as states
from fl_core.buffers import Buffers
from fl_core.transport import channel
from fl_core.transport.authority import Authority
from fl_core.transport.channel import Event, Joined, Received
from fl_core.transport.client import Client, dial
from fl_core.transport.frames import MAX_CHUNK, Frame
from fl_core.transport.identity import Identity

import grpc  # isort: skip - fl_core comes first: it has gRPC speak TLS 1.3 only

FEDERATION, RUN, HOST = "bench", "bench", "127.0.0.1"
MIB = 1024 * 1024
SIZES = {"tiny": 4 * 1024, "1": MIB, "10": 10 * MIB, "100": 100 * MIB}
"""Bytes of a state, by the name of its size."""
MANY = 64
MOST_PROCESSES = 4
"""More silos than that share this many processes."""
LIMIT = 256 * MIB
PATIENCE = 60.0
RAW = "/bench/raw"


@dataclass(frozen=True)
class Case:
    """One measurement. ``size``: bytes of a state."""

    name: str
    size: int
    silos: int
    rounds: int

    @property
    def names(self) -> list[str]:
        """The silos'."""
        return [f"silo-{number}" for number in range(self.silos)]


@dataclass(frozen=True)
class Figures:
    """Of one server: seconds of its median round, CPU seconds of a round, peak memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


Exchange = Callable[[], None]
"""One round: everything out, and everything back."""


def raw_server(identity: Identity, case: Case) -> tuple[int, Exchange]:
    """The floor: the port, and how a round is run."""
    state = np.ones(case.size // 4, np.float32).tobytes()
    pieces = [state[i : i + MAX_CHUNK] for i in range(0, len(state), MAX_CHUNK)]
    total = np.zeros(case.size // 4, np.float32)
    lock = threading.Lock()
    outgoing: list[queue.SimpleQueue[list[bytes]]] = []
    done: queue.SimpleQueue[None] = queue.SimpleQueue()
    joined: queue.SimpleQueue[None] = queue.SimpleQueue()

    def read(requests: Iterator[bytes]) -> None:
        start = 0
        with suppress(grpc.RpcError):  # the end
            for piece in requests:
                values = np.frombuffer(piece, np.float32)
                with lock:
                    total[start : start + values.size] += values
                start += values.size
                if start == total.size:
                    start = 0
                    done.put(None)

    def serve(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.send_initial_metadata(())
        threading.Thread(target=read, args=(requests,), daemon=True).start()
        mine: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
        outgoing.append(mine)
        joined.put(None)
        while True:
            yield from mine.get()

    service, method = RAW[1:].split("/")
    handler = grpc.stream_stream_rpc_method_handler(serve)
    server = grpc.server(
        ThreadPoolExecutor(case.silos),
        handlers=[grpc.method_handlers_generic_handler(service, {method: handler})],
        options=channel.OPTIONS,
    )
    credentials = grpc.ssl_server_credentials(
        [(identity.key, identity.certificate)], identity.authority, require_client_auth=True
    )
    port = server.add_secure_port(f"{HOST}:0", credentials)
    server.start()

    def exchange() -> None:
        assert server  # gRPC ends a server that nobody holds
        while len(outgoing) < case.silos:
            joined.get(timeout=PATIENCE)
        total.fill(0)
        for each in outgoing:
            each.put(pieces)
        for _ in range(case.silos):
            done.get(timeout=PATIENCE)

    return port, exchange


def raw_silo(identity: Identity, port: int, size: int) -> None:
    """Send back each state, once it is there whole."""
    outgoing: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()

    def requests() -> Iterator[bytes]:
        while True:
            yield from outgoing.get()

    with dial(identity, FEDERATION, f"{HOST}:{port}") as open_channel, suppress(grpc.RpcError):
        came, length = [], 0
        for piece in open_channel.stream_stream(RAW)(requests()):
            came.append(piece)
            length += len(piece)
            if length == size:
                outgoing.put(came)
                came, length = [], 0


def our_server(identity: Identity, case: Case) -> tuple[int, Exchange]:
    """This project's round, on the parts that the aggregator is made of."""
    from fl_core.model import Update
    from fl_core.roles import communication as wire
    from fl_core.strategies.contract import StrategyParams
    from fl_core.strategies.fedavg import FedAvg
    from fl_core.transport.server import Server

    ranks = {name: rank for rank, name in enumerate(case.names, start=1)}
    manager = wire.Communication(ranks, frozenset({wire.UPDATE}), LIMIT, wait=lambda: None)
    server = Server(identity, FEDERATION, ranks.__contains__, case.silos, RUN, LIMIT, manager.take)

    class Endpoint:
        def send(self, peer: str, frame: Frame, soon: bool) -> None:
            server.send(peer, frame)

        def stop(self) -> None:
            server.stop(0)

    class Role:
        def __init__(self) -> None:
            self.state: states.State = {"w": np.ones((case.size // 4096, 1024), np.float32)}
            self.strategy = FedAvg(StrategyParams())
            self.round = self.updates = 0

        def receive_message(self, msg_type: int, msg_params: Any) -> None:
            if msg_type == wire.READY:
                ended.put(None)
                return
            if msg_type == wire.LEFT:  # the end
                return
            params = msg_params.get_params()
            assert params[wire.ROUND] == self.round
            arrays = manager.arrays(msg_params)
            states.check_finite(arrays, "update")
            update = Update(states.under(arrays, "model/"), 100, {"loss": 0.0})
            self.strategy.check(update)
            self.strategy.add(str(msg_params.get_sender_id()), update)
            self.updates += 1
            if self.updates == case.silos:
                self.state = self.strategy.finish()
                states.check_finite(self.state, "state")
                ended.put(None)

        def begin(self) -> None:
            self.round += 1
            self.updates = 0
            self.strategy.start(self.state)
            encoded = states.laid_out({f"model/{name}": a for name, a in self.state.items()})
            for rank in ranks.values():
                params = {wire.ROUND: self.round, wire.ARRAYS: encoded, "fit": True}
                manager.send_message(wire.message(wire.STATE, 0, rank, params))

    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    manager.endpoint = Endpoint()
    role = Role()
    manager.add_observer(role)
    port = server.start(HOST, 0)
    threading.Thread(target=manager.handle_receive_message, daemon=True).start()

    def exchange() -> None:
        if role.round == 0:
            for _ in range(case.silos):
                ended.get(timeout=PATIENCE)
        role.begin()
        ended.get(timeout=PATIENCE)

    return port, exchange


def our_silo(identity: Identity, port: int, size: int) -> None:
    """Decode each state, and send it back as the update."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    client = Client(identity, FEDERATION, RUN, LIMIT, events.put, PATIENCE)
    client.start(HOST, port)
    while True:
        event = events.get()
        if isinstance(event, Received):
            frame = event.frame
            assert not isinstance(frame.state, Buffers)
            states.decode(frame.state, LIMIT)
            meta = {"weight": 100, "loss": 0.5, "seconds": 0.1}
            client.send(Frame(3, frame.round, meta, frame.state))
        elif not isinstance(event, Joined):
            return


SIDES = {"raw": (raw_server, raw_silo), "ours": (our_server, our_silo)}


def peak_bytes() -> int:
    """Of this process: the largest resident set so far."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (found,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found) * 1024


def serve(side: str, identity: Identity, case: Case, to_parent: Connection) -> None:
    """A server's process: run the rounds, and tell what they took."""
    try:
        _serve(side, identity, case, to_parent)
    except Exception:  # noqa: BLE001 - gRPC's threads would keep the process, and who waits for it
        traceback.print_exc()
        os._exit(1)


def _serve(side: str, identity: Identity, case: Case, to_parent: Connection) -> None:
    port, exchange = SIDES[side][0](identity, case)
    to_parent.send(port)
    exchange()  # the first one finds cold pages and slow windows
    seconds = []
    cpu = time.process_time()
    for _ in range(case.rounds):
        start = time.perf_counter()
        exchange()
        seconds.append(time.perf_counter() - start)
    cpu = (time.process_time() - cpu) / case.rounds
    to_parent.send(Figures(median(seconds), cpu, peak_bytes()))
    to_parent.recv()  # the parent ends the silos first


def take_part(side: str, identities: list[Identity], port: int, size: int) -> None:
    """A process of one or more silos, to its end."""
    silo = SIDES[side][1]
    threads = [
        threading.Thread(target=silo, args=(identity, port, size), daemon=True)
        for identity in identities
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(side: str, case: Case, authority: Authority) -> Figures:
    """Run one side of a case in processes of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    identity = authority.aggregator([HOST])
    server = context.Process(target=serve, args=(side, identity, case, theirs), daemon=True)
    silos = []
    server.start()
    theirs.close()
    try:
        port = ours.recv()
        identities = [authority.silo(name) for name in case.names]
        for first in range(min(case.silos, MOST_PROCESSES)):
            mine = identities[first::MOST_PROCESSES]
            silos.append(
                context.Process(target=take_part, args=(side, mine, port, case.size), daemon=True)
            )
            silos[-1].start()
        return ours.recv()
    finally:
        for process in [*silos, server]:
            process.kill()
            process.join()
        ours.close()


def cases(names: list[str]) -> list[Case]:
    """Four silos of each size, and many of a tiny one and one of 10 MiB."""
    found = []
    for name in names:
        size = SIZES[name]
        rounds = max(3, min(100, 50 * MIB // size))
        found.append(Case(f"{name} x 4", size, 4, rounds))
        if name in ("tiny", "10"):
            found.append(Case(f"{name} x {MANY}", size, MANY, max(3, rounds // 8)))
    return found


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--turns", type=int, default=3, help="how often each side has its turn")
    arguments = parser.parse_args()
    authority = Authority(FEDERATION, dt.timedelta(hours=12))
    sides = [f"{side} {what}" for what in ("ms", "CPU ms", "MB") for side in SIDES]
    print(f"{'MiB x silos':12}{''.join(f'{side:>12}' for side in sides)}{'ratio':>8}")
    for case in cases(arguments.sizes):
        found = {side: [] for side in SIDES}
        for _ in range(arguments.turns):
            for side in SIDES:
                found[side].append(measure(side, case, authority))
        # The least: other programs of the machine only ever add to it.
        seconds = [min(one.seconds for one in found[side]) for side in SIDES]
        cpu = [min(one.cpu_seconds for one in found[side]) for side in SIDES]
        peaks = [max(one.peak_bytes for one in found[side]) for side in SIDES]
        row = [1e3 * each for each in (*seconds, *cpu)] + [each / 1e6 for each in peaks]
        figures = "".join(f"{each:12.1f}" for each in row)
        print(f"{case.name:12}{figures}{seconds[1] / seconds[0]:8.2f}", flush=True)


if __name__ == "__main__":
    main()
