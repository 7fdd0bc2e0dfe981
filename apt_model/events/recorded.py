"""Reading a record file: its whole lines, which of them are events, and where it is damaged.

Knows nothing of what the events tell. Nothing here waits for what never answers: only a regular file is a record.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from apt_model.errors import DataError, StorageError, reason_of
from apt_model.events.event import Event
from apt_model.events.parse import LONGEST_LINE, event_of

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Damage:
    """The lines of a record that are no events.

    Attributes:
        count: how many there are.
        line: the number of the first, from 1.
        why: what is wrong with the first, in English.
    """

    count: int
    line: int
    why: str


NOTHING_WHOLE = Damage(count=1, line=1, why="it has no whole line yet, or was cut off")


class Sieve(Generic[T]):
    """Tells the events among a record's lines, and counts the others.

    Args:
        judge: makes an event of a line; raises DataError if it is none.

    Attributes:
        lines: how many it was given.
        damage: those that are no events; None if all are.
    """

    def __init__(self, judge: Callable[[bytes], T]) -> None:
        self._judge = judge
        self.lines = 0
        self.damage: Damage | None = None

    def take(self, line: bytes) -> T | None:
        """The event of the next line, given without its end; None if it is none."""
        self.lines += 1
        try:
            return self._judge(line)
        except DataError as error:
            found = self.damage or Damage(count=0, line=self.lines, why=str(error.got))
            self.damage = replace(found, count=found.count + 1)
            return None


class WholeEvents:
    """The events of a record in order, up to the last whole line; damaged lines are left out and counted.

    Attributes:
        path: of the record.
        damage: of the lines read so far; None if all are events.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: Damage | None = None

    def __iter__(self) -> Iterator[Event]:
        """Read the record from its beginning.

        Raises:
            StorageError: it cannot be read.
            DataError: it has no whole line, or not one of them is an event.
        """
        sieve, is_empty = Sieve(event_of), True
        for line in record_lines(self.path):
            event, self.damage = sieve.take(line), sieve.damage
            if event is not None:
                is_empty = False
                yield event
        if is_empty:
            raise no_event_in(self.path, self.damage or NOTHING_WHOLE)


def no_event_in(record: Path, damage: Damage) -> DataError:
    """The error of a record of which nothing can be shown."""
    return DataError(f"no line of {record} is an event", got=f"line {damage.line}: {damage.why}")


def strict_events(path: Path) -> Iterator[Event]:
    """The events of a record in order, up to the last whole line.

    Raises:
        StorageError: it cannot be read.
        DataError: a line is not an event; names the line.
    """
    for number, line in enumerate(record_lines(path), start=1):
        try:
            event = event_of(line)
        except DataError as error:
            what = f"{path}:{number} is not an event"
            raise DataError(what, got=error.got, expected=error.expected, fix=error.fix) from error
        yield event


def record_lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a record without their ends; of one longer than LONGEST_LINE the beginning, too long still.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with open_record(path) as file:
            while (line := file.readline(LONGEST_LINE + 2)).endswith(b"\n") or skip_line(file, len(line)):
                yield line.removesuffix(b"\n")
    except (OSError, ValueError) as error:  # of a path with a NUL in it, ValueError
        raise StorageError(f"no record at {path}", got=reason_of(error), fix="give a run directory") from error


def skip_line(file: BinaryIO, read: int) -> bool:
    """Go behind a line too long to be kept, of which `read` bytes were read; False if its end is not there yet."""
    while read > LONGEST_LINE and (more := file.readline(LONGEST_LINE)):
        if more.endswith(b"\n"):
            return True
    return False


def open_record(path: Path) -> BinaryIO:
    """Open a record to read; a pipe, device or folder is refused instead of waited for.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def name_of(run: Path) -> str:
    """The name of a run directory as text; bytes of it that are not UTF-8 as escapes, as in \\xbf."""
    return os.fsencode(run.name).decode("utf-8", "backslashreplace")
