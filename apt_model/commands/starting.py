"""Ctrl-C while modules are imported: one line, and the end. Imports nothing that takes time itself."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LINE = b"interrupted while starting: nothing had begun\n"


@contextmanager
def starting() -> Iterator[None]:
    """Context manager around imports: Ctrl-C ends the process at once with one line and exit code 130.

    A KeyboardInterrupt may be swallowed in the middle of an import, or print a traceback that nobody can catch.
    """
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else somebody handles or ignores it
    if not is_ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\r\x1b[2K" * os.isatty(2) + LINE)  # instead of what the terminal shows as being loaded
    os._exit(130)
