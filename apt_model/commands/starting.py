"""How the program ends at Ctrl-C and SIGTERM: one line, exit code 130 or 143. Imports nothing that takes time itself.

Within a command a KeyboardInterrupt is raised, so that what is open is closed. Before a command, after it, while
modules are imported, and at a second signal the process ends at once: there the exception would be swallowed, or
printed as a traceback that nobody can catch. So it does where it has workers: one that ended with a lock of their queue
would be waited for without end.
"""

import atexit
import os
import signal
import sys
from types import FrameType, TracebackType

TYPE_CHECKING = False  # to a type checker True: `typing` itself takes longer than all of this
if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

IMPORT = "<frozen importlib._bootstrap>"
WHOLE = b"\x1b[?25h\r\x1b[2K"  # the cursor again, and nothing left of what the terminal shows as being loaded


class Ending:
    """The process's own way to end at a signal, and a context manager around what a KeyboardInterrupt has to close."""

    line = "interrupted: what was written before is kept"

    def __init__(self) -> None:
        self._owner = 0  # the process that listens; its forks end without a word
        self._closes = False  # a command runs
        self._code: int | None = None  # of a command that has ended, and has said all there is to say
        self.signal: int = signal.SIGINT  # the last that was heard
        self._heard = False

    def listen(self) -> None:
        """Take over Ctrl-C and SIGTERM, unless somebody else handles or ignores them.

        Under a launcher SIGTERM is left alone: a process that waits for the others would not hear of it.
        """
        self._owner = os.getpid()
        sys.unraisablehook = self._unraisable
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the last: what is left has its exit code
        alone = os.environ.get("WORLD_SIZE", "1") == "1"
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            if signal.getsignal(number) is usual and (alone or number == signal.SIGINT):
                signal.signal(number, self._hear)

    def __enter__(self) -> None:
        self._closes = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closes = False

    def over(self, code: int) -> int:
        """The command has ended with this exit code: a signal from now on ends the process with it, without a word."""
        self._code = code
        return code

    def _hear(self, number: int, frame: FrameType | None) -> None:
        second, self._heard, self.signal = self._heard, True, number
        if second or not self._closes or os.getpid() != self._owner or _imports(frame) or _workers():
            self._end()
        raise KeyboardInterrupt

    def _unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """A KeyboardInterrupt in a `__del__` or a callback, from which it cannot be raised, ends the process too."""
        if unraisable.exc_type is KeyboardInterrupt:
            self._end()
        sys.__unraisablehook__(unraisable)

    def _end(self) -> None:
        if self._owner == os.getpid():
            for worker in _workers():  # with nobody to end it a manager would wait for ever
                worker.kill()
            if self._code is None:
                os.write(2, WHOLE * os.isatty(2) + self.line.encode() + b"\n")
        os._exit(128 + self.signal if self._code is None else self._code)


def _imports(frame: FrameType | None) -> bool:
    """Whether the frame belongs to a module that is being imported."""
    while frame is not None and frame.f_code.co_filename != IMPORT:
        frame = frame.f_back
    return frame is not None


def _workers() -> "list[BaseProcess]":
    """The processes that this one maps or loads data with."""
    found: list[BaseProcess] = []
    for name in ("multiprocessing.process", "multiprocess.process"):  # the second is what `datasets` maps with
        found += getattr(sys.modules.get(name), "active_children", tuple)()
    return found


ENDING = Ending()
