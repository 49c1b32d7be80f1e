"""Signals to end: none is lost, wherever the main thread is."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import threading
import weakref

import pytest

from fl_core.interrupts import Interrupts, leaving


class _Thing:
    pass


def _interrupted_in_a_callback() -> None:
    """Where the interpreter drops exceptions, as it does at the end of every import."""
    thing = _Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    assert reference() is None


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_is_lost_is_pending() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        assert not _readable(interrupts.pending)
        _interrupted_in_a_callback()
        assert _readable(interrupts.pending)
        signal.raise_signal(signal.SIGTERM)  # one is enough
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_an_interrupt(sent: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, sent)]
    with Interrupts():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(sent)
        signal.raise_signal(sent)
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, sent)]


def test_in_another_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with leaving(lambda: None), Interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


LEAVES = """
import os, signal, weakref
from fl_core.interrupts import leaving

class Thing:
    pass

def hit(*arguments):
    os.kill(os.getpid(), signal.SIGINT)

class Field:
    __set_name__ = hit

with leaving(lambda: os.write(2, b"bye")):
    {hit}
print("still there")
"""


@pytest.mark.parametrize(
    "hit",
    [
        "hit()",
        "thing = Thing(); reference = weakref.ref(thing, hit); del thing",
        "type('Made', (), {'field': Field()})",
    ],
)
def test_leaving_ends_the_process_wherever_the_signal_comes(hit: str) -> None:
    command = [sys.executable, "-c", LEAVES.replace("{hit}", hit)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (130, "", "bye")


def test_after_leaving_the_handler_is_that_of_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with leaving(lambda: None):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
