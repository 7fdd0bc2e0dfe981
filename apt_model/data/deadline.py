"""End Python code that runs for ever: raise in the thread whose time is up. Knows nothing of what runs.

Works in any thread, and costs a few microseconds until the time is up. A single call into C, such as a regular
expression, is left to return first.
"""

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LOOKS_EVERY, ENDS_AFTER = 0.1, 1.0  # seconds


class TimeUpError(BaseException):
    """The time is up. No `Exception`, so that what runs does not catch it as one of its own."""


@dataclass(eq=False)
class _Due:
    thread: int
    at: float
    is_done: bool = False
    is_fired: bool = False


@dataclass(eq=False)
class _Watch:
    """Who is watched in a process, and the lock that guards it; its thread ends when it has nothing to do."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    watched: list[_Due] = field(default_factory=list)
    has_thread: bool = False

    def add(self, due: _Due) -> None:
        with self.lock:
            self.watched.append(due)
            begins, self.has_thread = not self.has_thread, True
        if begins:
            threading.Thread(target=self._look, name="apt-model-deadline", daemon=True).start()

    def end(self, due: _Due) -> None:
        with self.lock:
            due.is_done = True
            if due.is_fired:  # perhaps not raised yet: then not behind the block
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(due.thread), None)

    def _look(self) -> None:
        idle = 0.0
        while True:
            time.sleep(LOOKS_EVERY)
            with self.lock:
                self.watched = [due for due in self.watched if not due.is_done and not due.is_fired]
                idle = 0.0 if self.watched else idle + LOOKS_EVERY
                if idle > ENDS_AFTER:
                    self.has_thread = False
                    return
                for due in self.watched:
                    if time.monotonic() > due.at:
                        due.is_fired = True
                        error = ctypes.py_object(TimeUpError)
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(due.thread), error)


_watches = dict[int, _Watch]()  # by process: a fork has neither the thread nor a lock that is sure to be free


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Context manager: raise `TimeUpError` in this thread if the block takes longer than so many seconds.

    Raises:
        TimeUpError: the time is up.
    """
    due, watch = _Due(threading.get_ident(), time.monotonic() + seconds), _watches.setdefault(os.getpid(), _Watch())
    watch.add(due)
    try:
        yield
    finally:
        watch.end(due)
    if due.is_fired:
        raise TimeUpError
