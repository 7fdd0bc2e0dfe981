"""Code that runs for ever is ended in its own thread, whichever that is, and nothing is raised behind it."""

import contextlib
import os
import threading
import time

import pytest

from apt_model.data.deadline import TimeUpError, deadline


def spin() -> None:
    while True:
        with contextlib.suppress(Exception):  # as the code of others does
            sum(range(100))


def test_what_never_ends_is_ended_although_it_catches_every_exception() -> None:
    begun = time.monotonic()
    with pytest.raises(TimeUpError), deadline(0.3):
        spin()
    assert 0.3 <= time.monotonic() - begun < 2


def test_other_threads_have_deadlines_of_their_own() -> None:
    ended: list[float] = []

    def run(seconds: float) -> None:
        try:
            with deadline(seconds):
                spin()
        except TimeUpError:
            ended.append(seconds)

    threads = [threading.Thread(target=run, args=(seconds,)) for seconds in (0.9, 0.2, 0.5)]
    for thread in threads:
        thread.start()
    with deadline(20):
        for thread in threads:
            thread.join(10)
    assert ended == [0.2, 0.5, 0.9]


def test_an_inner_deadline_leaves_the_outer_one() -> None:
    def inner() -> None:
        with pytest.raises(TimeUpError), deadline(0.2):
            spin()
        with deadline(5):
            spin()

    with pytest.raises(TimeUpError), deadline(0.6):
        inner()


def test_nothing_is_raised_behind_a_block_that_ended_in_time() -> None:
    late = 0
    for _ in range(40):  # ends about when its time is up
        try:
            with deadline(0.02):
                time.sleep(0.02)
        except TimeUpError:
            late += 1
    time.sleep(0.3)
    assert late <= 40


def test_a_fork_has_deadlines_too() -> None:
    with deadline(5):
        time.sleep(0.2)  # the parent's thread runs
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with deadline(0.3):
                    spin()
            except TimeUpError:
                code = 7
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_the_thread_ends_when_there_is_nothing_to_watch() -> None:
    with deadline(5):
        assert any(thread.name == "apt-model-deadline" for thread in threading.enumerate())
    until = time.monotonic() + 5
    while any(thread.name == "apt-model-deadline" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.1)
