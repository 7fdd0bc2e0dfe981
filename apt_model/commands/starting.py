"""How the program ends at Ctrl-C and SIGTERM: one line, exit code 130 or 143. Imports nothing that takes time itself.

Within a command a KeyboardInterrupt is raised, so that what is open is closed. Before a command, after it, while
modules are imported, and at a second signal the process ends at once: there the exception would be swallowed, or
printed as a traceback that nobody can catch. So it does where it has workers: one that ended with a lock of their queue
would be waited for without end.
"""

import _thread
import atexit
import os
import signal
import sys
from types import FrameType, TracebackType

from apt_model.ranks.place import likely_place

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
        self._forking = _thread.RLock()  # held while a thread forks, and from the end on

    def listen(self) -> None:
        """Take over Ctrl-C and SIGTERM, unless somebody else handles or ignores them.

        Under a launcher SIGTERM is left alone: a process that waits for the others would not hear of it.
        """
        self._owner = os.getpid()
        release = self._forking.release
        os.register_at_fork(before=self._forking.acquire, after_in_child=release, after_in_parent=release)
        sys.unraisablehook = self._unraisable
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the last: what is left has its exit code
        alone = likely_place().size == 1
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
            self._forking.acquire(timeout=1)  # a pool replaces its workers that the same signal ended
            for worker in _workers():  # with nobody to end it a manager would wait for ever
                _kill(worker)
            if self._code is None:
                os.write(2, WHOLE * os.isatty(2) + self.line.encode() + b"\n")
        os._exit(128 + self.signal if self._code is None else self._code)


def _imports(frame: FrameType | None) -> bool:
    """Whether the frame belongs to a module that is being imported."""
    while frame is not None and frame.f_code.co_filename != IMPORT:
        frame = frame.f_back
    return frame is not None


def _workers() -> set[int]:
    """The processes that this one maps or loads data with; its forks among them that no module knows of yet."""
    found = set()
    for name in ("multiprocessing.process", "multiprocess.process"):  # the second is what `datasets` maps with
        found |= {child.pid for child in getattr(sys.modules.get(name), "active_children", tuple)()}
    own = _words("/proc/self/cmdline")  # empty where there is no /proc
    for thread in os.scandir("/proc/self/task") if own else ():
        children = map(int, _words(f"/proc/self/task/{thread.name}/children").split())
        found |= {child for child in children if _words(f"/proc/{child}/cmdline") == own}
    return found


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _words(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes time to import
            return file.read()
    except OSError:  # a process or thread that has ended
        return b""


ENDING = Ending()
