"""The exceptions that the package raises on purpose, each with its error code and exit code.

A message has four parts: what is wrong, the value seen, what is expected, the fix. Knows nothing of who raises it.
"""

from reprlib import Repr
from typing import ClassVar, NamedTuple

UNWRITTEN = (OSError, RuntimeError, ValueError, MemoryError)  # what reading and writing of files may raise
LONGEST = 200  # characters of a value in a message
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 100


def brief(value: object) -> str:
    """`repr(value)`, cut to about a hundred characters."""
    try:
        text = _SHORT.repr(value)
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 2 :]}"
    except ValueError:  # an integer with more digits than Python converts to text
        return "a very long number"


def reason_of(error: BaseException) -> str:
    """Why something failed, in a few words: the first line of what an exception says, or the value that it names.

    The second line too, where the first leads up to it; with its type where the words alone say little.
    """
    said = getattr(error, "got", None) or getattr(error, "strerror", None)
    if said:
        return str(said)[:300]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])[:300]
    return text if " " in text else f"{type(error).__name__}: {text}".rstrip(": ")


class AptModelError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one line that ends with the fix.

    Args:
        what: what is wrong, in a few words, naming the thing.
        got: the value seen.
        expected: what is accepted.
        fix: what the user can do now.
    """

    code: ClassVar[str] = "APT"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, got: object = None, expected: str | None = None, fix: str | None = None) -> None:
        self.what, self.got, self.expected, self.fix = what, got, expected, fix
        self.last_good: str | None = None
        super().__init__(self._line())

    def __str__(self) -> str:
        """The message, with the path of the last good checkpoint if a run has one."""
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
    """This machine does not have the device."""


class DataError(AptModelError, ValueError):
    """A batch, file or dataset cannot be trained on."""

    code, exit_code = "DATA", 3


class ModelError(AptModelError, ValueError):
    """A model or tokenizer cannot be loaded, or cannot serve as teacher or student."""

    code, exit_code = "MODEL", 3


class NumericError(AptModelError, ArithmeticError):
    """A loss, gradient or logit is NaN or infinite."""

    code, exit_code = "NUMERIC", 4


class OutOfMemoryError(AptModelError, MemoryError):
    """A training step needs more memory than is free."""

    code, exit_code = "MEMORY", 4


class StorageError(AptModelError, OSError):
    """A file or directory cannot be read or written."""

    code, exit_code = "STORAGE", 5


def storage_error_of(error: OSError) -> StorageError:
    """Our line for a file or an output of which nobody has said more."""
    got = ": ".join(str(part) for part in (error.strerror or error, error.filename) if part)
    what = "a file or the output cannot be read or written"
    return StorageError(what, got=got, fix="check its path and the free space")


class RankLostError(AptModelError, ConnectionError):
    """Another process of the run has ended, was stopped, or does not go on; its rank, host and PID are named."""

    code, exit_code = "RANK", 6


class Interrupted(AptModelError, KeyboardInterrupt):  # noqa: N818 - not an error, like KeyboardInterrupt
    """The run was saved after SIGTERM or Ctrl-C, once its step was done; `exit_code` is 128 + the signal's number."""

    code = "INTERRUPTED"

    def __init__(self, what: str, *, signal: int) -> None:
        super().__init__(what)
        self.exit_code = 128 + signal  # type: ignore[misc]


class Told(NamedTuple):
    """What a rank tells the others of its error."""

    rank: int
    code: str
    exit_code: int
    line: str


def told_of(told: Told) -> AptModelError:
    """The error that another rank told of: its class by its code, its line, and which rank's it is."""
    what = told.line if told.code == RankLostError.code else f"rank {told.rank}: {told.line}"
    if told.code == Interrupted.code:
        return Interrupted(what, signal=told.exit_code - 128)
    kinds = (ConfigError, DataError, ModelError, NumericError, OutOfMemoryError, StorageError, RankLostError)
    return next((kind for kind in kinds if kind.code == told.code), AptModelError)(what)


def is_of_library(error: BaseException) -> bool:
    """Whether an exception is one that a library raises over its input: an `Exception`, or the panic of a Rust package.

    All else (an interrupt, the end of a task, what a caller's signal handler raises) is meant for somebody else.
    """
    kind = type(error)
    return isinstance(error, Exception) or (kind.__module__, kind.__name__) == ("pyo3_runtime", "PanicException")
