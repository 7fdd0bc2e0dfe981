"""Every exception raised on purpose. Each owns its exit code.

Knows nothing of what raised it: an error is what went wrong, what was seen, what was expected, and the fix.
"""

from reprlib import Repr
from typing import ClassVar

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 100


def brief(value: object) -> str:
    """`repr(value)` in at most some hundred characters, whatever it is."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of more digits than python likes to write
        return "a very long number"


class AptModelError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one line that also says how to go on.

    Args:
        what: what is wrong, in a few words, naming the thing.
        got: the value seen.
        expected: what would have been accepted.
        fix: what the user can do now.
    """

    code: ClassVar[str] = "APT"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, got: object = None, expected: str | None = None, fix: str | None = None) -> None:
        self.what, self.got, self.expected, self.fix = what, got, expected, fix
        self.last_good: str | None = None
        super().__init__(self._line())

    def __str__(self) -> str:
        """The line, and where the last good checkpoint is, if there is one."""
        return self._line() + (f" Last good checkpoint: {self.last_good}." if self.last_good else "")

    def _line(self) -> str:
        line = self.what
        seen = [f"got {self.got}"] if self.got is not None else []
        seen += [f"expected {self.expected}"] if self.expected is not None else []
        if seen:
            line += "; " + ", ".join(seen)
        if self.fix is not None:
            line += f". Fix: {self.fix}"
        return " ".join(line.split()).rstrip(".") + "."


class ConfigError(AptModelError, ValueError):
    """A setting is unknown, of the wrong type, or out of its range."""

    code, exit_code = "CONFIG", 2


class DeviceError(ConfigError):
    """A device that this machine does not have."""


class DataError(AptModelError, ValueError):
    """A batch, a file or a dataset cannot be learned from."""

    code, exit_code = "DATA", 3


class ModelError(AptModelError, ValueError):
    """A model or tokenizer cannot play the part it was given."""

    code, exit_code = "MODEL", 3


class NumericError(AptModelError, ArithmeticError):
    """A loss or gradient is not finite."""

    code, exit_code = "NUMERIC", 4


class OutOfMemoryError(AptModelError, MemoryError):
    """A step needs more memory than there is."""

    code, exit_code = "MEMORY", 4


class StorageError(AptModelError, OSError):
    """A file or directory cannot be written or read."""

    code, exit_code = "STORAGE", 5


class Interrupted(AptModelError, KeyboardInterrupt):  # noqa: N818 - no error, as KeyboardInterrupt is none
    """SIGTERM or Ctrl-C came; the step was finished and the run saved. `exit_code` is 128 + the signal's number."""

    code = "INTERRUPTED"

    def __init__(self, what: str, *, signal: int) -> None:
        super().__init__(what)
        self.exit_code = 128 + signal  # type: ignore[misc]
