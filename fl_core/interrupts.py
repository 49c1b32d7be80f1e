"""Ctrl-C and other signals to end, of which none is lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. Within a callback of the
interpreter's own, of which every import has one, the exception is printed and forgotten
(sys.unraisablehook); while a class is made it comes out as a RuntimeError.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fl_core.errors import Interrupted


@contextmanager
def leaving(tell: Callable[[], None]) -> Iterator[None]:
    """Within the block Ctrl-C calls ``tell`` and ends this process: nothing is to be tidied up yet.

    Signals are for the main thread: in another, the block is as any other, here and below.
    """

    def leave(signum: int, frame: object) -> None:
        signal.signal(signum, signal.SIG_IGN)
        tell()
        os._exit(Interrupted.exit_code)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Interrupts:
    """Within the block, the first signal to end is a KeyboardInterrupt, others are ignored.

    The block waits for what it waits for with a selector, and for :attr:`pending` beside it: to be
    read once a signal has come, whether its exception arrived or not.
    """

    _signals: tuple[signal.Signals, ...] = ()

    def __enter__(self) -> Interrupts:
        self.pending, self._note = os.pipe()
        if threading.current_thread() is threading.main_thread():
            self._signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = [signal.signal(number, self._interrupt) for number in self._signals]
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in zip(self._signals, self._before, strict=True):
            signal.signal(number, handler)
        os.close(self.pending)
        os.close(self._note)

    def _interrupt(self, signum: int, frame: object) -> None:
        self.ignore()
        os.write(self._note, b"!")
        raise KeyboardInterrupt

    def ignore(self) -> None:
        """Ignore them from now on: what is left to do is short and must be whole."""
        for number in self._signals:
            signal.signal(number, signal.SIG_IGN)
