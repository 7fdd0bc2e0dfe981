"""Handle SIGTERM and Ctrl-C: request a stop after the current step; a second Ctrl-C interrupts at once.

Knows signals; knows nothing of what is saved.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stop:
    """A stop request: `signal` is the number of the signal that requested it, 0 if none has."""

    def __init__(self) -> None:
        self.signal = 0
        self.before: dict[int, Any] = {}  # the handlers of both signals outside of the run

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The signal handler; Ctrl-C after a stop was requested is for the handler from before.

        Raises:
            KeyboardInterrupt: there is none, or it is Python's.
        """
        if self.signal and number == signal.SIGINT:
            earlier = self.before[number]
            (earlier if callable(earlier) else signal.default_int_handler)(number, frame)
        self.signal = number


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Context manager that handles both signals, and restores the earlier handlers at its end.

    Python handles signals in the main thread only: in any other, the stop is never requested.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        if (earlier := signal.getsignal(number)) is not None:  # None: not set from Python, and could not be set again
            stop.before[number] = earlier
            signal.signal(number, stop.ask)
    try:
        yield stop
    finally:
        for one, handler in stop.before.items():
            signal.signal(one, handler)
