"""Following a growing file: whole lines from a byte offset on. Knows nothing of what they mean."""

import os
from pathlib import Path
from typing import BinaryIO

from apt_model.events.parse import LONGEST_LINE
from apt_model.events.recorded import open_record, skip_line

CHUNK = 1 << 20
MARK = 1024  # bytes before the offset that must be unchanged: they differ in a record that was cut back and grew again

Line = tuple[int, bytes]


class Tail:
    """Reads what was appended to a file since the last read.

    Args:
        path: the file; it need not exist yet.
        offset: where to start, at the end of a line.

    Attributes:
        offset: bytes read so far.
        generation: how often the file was found cut back, replaced or gone; reading restarts at 0 each time.
        trouble: why the file could not be read the last time; None if it could, or is not there.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset, self.generation = offset, 0
        self.trouble: str | None = None
        self._mark: bytes | None = None
        self._skipped = 0  # up to where a line too long was looked through for its end
        self._seen: tuple[int, int, int] | None = None

    def read(self, limit: int = CHUNK) -> list[Line]:
        """Some lines without their newlines, each with the offset after it; empty if there is nothing new.

        Of a line longer than LONGEST_LINE only the beginning, too long still. Reads about `limit` bytes at a time, so
        that the caller stays responsive: call it again until it is empty.
        """
        try:
            with open_record(self._path) as file:
                self.trouble = None
                return self._read(file, limit)
        except (FileNotFoundError, NotADirectoryError):
            self.trouble = None
            if self.offset:
                self._begin_again()
        except OSError as error:  # maybe temporary: a network disk may come back
            self.trouble = error.strerror
        return []

    def _read(self, file: BinaryIO, limit: int) -> list[Line]:
        about = os.fstat(file.fileno())
        now = about.st_ino, about.st_size, about.st_mtime_ns
        if now == self._seen:
            return []
        if (self._seen is not None and now[0] != self._seen[0]) or not self._stands(file, about.st_size):
            self._begin_again()
            return []
        lines = self._some_lines(file, limit)
        if not lines or lines[-1][0] == about.st_size:  # all read: nothing to do before the file changes
            self._seen = now
        if lines:
            self.offset, last = lines[-1]
            self._mark = (last + b"\n")[-MARK:] if len(last) <= LONGEST_LINE else None
            self._skipped = 0
        return lines

    def _some_lines(self, file: BinaryIO, limit: int) -> list[Line]:
        """Whole lines, about `limit` bytes of them; a longer line alone, if its end is there."""
        file.seek(self.offset)
        text = file.read(limit)
        if b"\n" not in text and len(text) == limit:
            text += file.readline(LONGEST_LINE + 2 - limit)
        end, lines = self.offset, []
        for line in text.split(b"\n")[:-1]:
            end += len(line) + 1
            lines.append((end, line))
        if lines or len(text) <= LONGEST_LINE:
            return lines
        file.seek(max(self._skipped, file.tell()))
        if skip_line(file, len(text)):
            return [(file.tell(), text)]
        self._skipped = file.tell()
        return []

    def _stands(self, file: BinaryIO, size: int) -> bool:
        """Whether what was read is unchanged, judging by its last bytes."""
        if size < self.offset:
            return False
        if self._mark is None:
            self._mark = b""
            if self.offset:
                file.seek(max(0, self.offset - MARK))
                self._mark = file.read(self.offset - file.tell())
                return self._mark.endswith(b"\n")
        file.seek(self.offset - len(self._mark))
        return file.read(len(self._mark)) == self._mark

    def _begin_again(self) -> None:
        self.offset, self._mark, self._seen, self._skipped = 0, None, None, 0
        self.generation += 1


def near_the_end(path: Path, size: int) -> int:
    """An offset at the end of a line, about `size` bytes before the end of the file; 0 in a shorter one."""
    end = whole_lines(path)
    return whole_lines(path, before=end - size) if end > size else 0


def whole_lines(path: Path, *, before: int | None = None) -> int:
    """The offset after the last whole line (up to `before`); 0 if there is none, or no file."""
    try:
        with open_record(path) as file:
            size = file.seek(0, os.SEEK_END)
            at = size if before is None else min(before, size)
            while at:
                begin = max(0, at - CHUNK)
                file.seek(begin)
                end = file.read(at - begin).rfind(b"\n") + 1
                if end:
                    return begin + end
                at = begin
    except OSError:
        pass
    return 0
