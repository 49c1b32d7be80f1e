"""A stream that is cut in the middle of a run: the silo comes back and the run goes on."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_core.model import Model
from tests.integration.federation import Federation


class Proxy:
    """Forwards one port of the loopback to another, and cuts what it forwards on command."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self.accepted = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self.accepted += 1
            self._open += [near, far]
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            try:
                while True:
                    for key, _ in selector.select():
                        data = key.fileobj.recv(65536)
                        if not data:
                            return
                        key.data.sendall(data)
            except OSError:
                return
            finally:
                near.close()
                far.close()

    def cut(self) -> None:
        """End every connection at once, as a lost network would not even do so politely."""
        for end in self._open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._open.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


def _model_of_a_run(folder: Path, cut: Callable[[Proxy, Model], None] | None) -> bytes:
    """The model of a run of two silos; ``cut`` is given hungary's proxy and model."""
    federation = Federation(folder, silos=["cleveland", "hungary"], rounds=4)
    proxy = Proxy(federation.port)
    job = federation.job()
    if cut is not None:
        cut(proxy, job.model)
    federation.silo("cleveland")
    federation.silo("hungary", job, proxy.port)
    assert federation.join() == {}
    assert proxy.accepted == (1 if cut is None else 2)
    proxy.close()
    return (folder / "model.safetensors").read_bytes()


def _before_fit(proxy: Proxy, model: Model) -> None:
    fit = model.fit

    def cutting(state, table, context):
        if context.round == 2 and proxy.accepted == 1:
            proxy.cut()
        return fit(state, table, context)

    model.fit = cutting


def _before_scoring(proxy: Proxy, model: Model) -> None:
    predict = model.predict

    def cutting(state, table):
        if proxy.accepted == 1:
            proxy.cut()
        return predict(state, table)

    model.predict = cutting


@pytest.mark.parametrize("cut", [_before_fit, _before_scoring])
def test_a_silo_whose_stream_is_cut_comes_back_and_the_model_is_the_same(
    tmp_path: Path, cut: Callable[[Proxy, Model], None]
) -> None:
    undisturbed = _model_of_a_run(tmp_path / "whole", None)
    assert _model_of_a_run(tmp_path / "cut", cut) == undisturbed
