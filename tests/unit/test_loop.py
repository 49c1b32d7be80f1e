"""The loop: tasks in order, in one thread, and an answer for whoever asks from another."""

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_core.errors import RunFolderError, ServiceError
from fl_core.service import loop as loops
from fl_core.service.loop import Loop

SOON = 5.0
"""Seconds: far less than the loop's beat, far more than a busy machine needs."""


def work(loop: Loop) -> None:
    while not loop.stopping:
        loop.turn(None)


@pytest.fixture
def turning() -> Iterator[Loop]:
    """A loop that a thread of its own turns."""
    loop = Loop()
    thread = threading.Thread(target=work, args=(loop,), name="owner")
    thread.start()
    yield loop
    loop.stop()
    thread.join(SOON)
    assert not thread.is_alive()


def raises(error: BaseException):
    def question() -> None:
        raise error

    return question


@given(st.lists(st.integers()))
def test_tasks_are_done_once_each_in_the_order_in_which_they_were_put(numbers):
    loop, done = Loop(), []
    for number in numbers:
        loop.put(lambda number=number: done.append(number))
    for _ in numbers:
        loop.turn(None)
    assert done == numbers
    loop.turn(0.0)
    assert done == numbers


def test_a_task_that_puts_another_has_it_done_in_a_later_turn():
    loop, done = Loop(), []
    loop.put(lambda: loop.put(lambda: done.append("second")))
    loop.turn(0.0)
    assert done == []
    loop.turn(0.0)
    assert done == ["second"]


def test_an_error_in_a_task_comes_out_of_the_turn_and_the_next_task_is_done():
    loop, done = Loop(), []
    loop.put(raises(KeyError("x")))
    loop.put(lambda: done.append(1))
    with pytest.raises(KeyError):
        loop.turn(None)
    loop.turn(None)
    assert done == [1]


def test_a_turn_waits_no_longer_than_until():
    loop = Loop()
    until = time.monotonic() + 0.05
    loop.turn(until)
    assert until <= time.monotonic() < until + SOON


@given(st.floats(max_value=0.0, allow_nan=False))
def test_a_time_that_has_passed_is_not_waited_for(late):
    loop, done = Loop(), []
    before = time.monotonic()
    loop.turn(before + late)
    loop.put(lambda: done.append(1))
    loop.turn(before + late)
    assert done == [1]
    assert time.monotonic() < before + SOON


@pytest.mark.parametrize("until", [None, float("inf")])
def test_a_turn_ends_after_a_beat_when_nothing_happens(monkeypatch, until):
    monkeypatch.setattr(loops, "BEAT_SECONDS", 0.01)
    before = time.monotonic()
    Loop().turn(until)
    assert time.monotonic() < before + SOON


def test_a_task_ends_the_wait():
    loop, done = Loop(), []
    timer = threading.Timer(0.02, loop.put, args=(lambda: done.append(1),))
    timer.start()
    before = time.monotonic()
    loop.turn(None)
    timer.join()
    assert done == [1]
    assert time.monotonic() < before + SOON


def test_every_turn_leaves_its_time():
    loop = Loop()
    loop.last_turn = 0.0
    before = time.monotonic()
    loop.turn(0.0)
    assert before <= loop.last_turn <= time.monotonic()


def test_a_question_is_answered_by_the_thread_that_turns_the_loop(turning):
    assert turning.ask(lambda: threading.current_thread().name) == "owner"
    assert turning.ask(lambda: None) is None


def test_every_thread_gets_its_own_answer(turning):
    count = []

    def question(number: int) -> int:
        count.append(number)
        return number

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: turning.ask(lambda: question(n)), range(100)))
    assert answers == list(range(100))
    assert sorted(count) == answers


@pytest.mark.parametrize(
    "error",
    [RunFolderError("no such run", "look"), KeyError("x"), queue.Empty(), TimeoutError()],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_raised_where_the_question_was_asked_and_the_loop_goes_on(turning, error):
    with pytest.raises(type(error)) as caught:
        turning.ask(raises(error))
    assert caught.value is error
    assert turning.ask(lambda: 1) == 1


def test_after_the_loop_has_ended_a_question_is_refused(monkeypatch):
    monkeypatch.setattr(loops, "ANSWER_SECONDS", 0.01)
    loop = Loop()
    loop.stop()
    work(loop)
    with pytest.raises(ServiceError, match="stopping, or busy") as caught:
        loop.ask(lambda: 1)
    assert caught.value.remedy


def test_a_question_that_was_refused_is_not_carried_out_later(monkeypatch):
    monkeypatch.setattr(loops, "ANSWER_SECONDS", 0.01)
    loop, done = Loop(), []
    with pytest.raises(ServiceError):
        loop.ask(lambda: done.append("submitted"))
    loop.turn(0.0)
    assert done == []


def test_what_was_put_before_the_stop_is_done():
    loop, done = Loop(), []
    loop.put(lambda: done.append(1))
    loop.stop()
    assert not loop.stopping
    work(loop)
    assert loop.stopping
    assert done == [1]


def test_another_thread_stops_a_loop_that_waits():
    loop = Loop()
    timer = threading.Timer(0.02, loop.stop)
    timer.start()
    before = time.monotonic()
    work(loop)
    timer.join()
    assert time.monotonic() < before + SOON


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(),
    reason="only the main thread has signal handlers",
)
def test_a_signal_handler_stops_a_loop_that_waits():
    loop = Loop()
    old = signal.signal(signal.SIGALRM, lambda number, frame: loop.stop())
    try:
        before = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        work(loop)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert time.monotonic() < before + SOON


PUTS_UNDER_SIGNALS = """
import signal
from fl_core.service.loop import Loop

loop = Loop()
signal.signal(signal.SIGALRM, lambda number, frame: loop.put(lambda: None))
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
for _ in range(2000):
    loop.put(lambda: None)
signal.setitimer(signal.ITIMER_REAL, 0)
loop.stop()
while not loop.stopping:
    loop.turn(None)
"""


def test_a_signal_while_another_task_is_put_blocks_nobody():
    """Handlers run between any two steps of the main thread, and put is one of these.

    In a process of its own, which has one thread: a signal that the kernel gives to another one
    can come after its handler was taken back.
    """
    subprocess.run([sys.executable, "-c", PUTS_UNDER_SIGNALS], check=True, timeout=60)
