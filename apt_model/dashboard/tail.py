"""Following a growing file: whole lines from a byte offset on. Knows nothing of what they mean."""

import json
import os
from pathlib import Path
from typing import BinaryIO

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
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset, self.generation = offset, 0
        self._mark: bytes | None = None
        self._seen: tuple[int, int, int] | None = None

    def read(self, limit: int = CHUNK) -> list[Line]:
        """Some lines without their newlines, each with the offset after it; empty if there is nothing new.

        Reads about `limit` bytes at a time, so that the caller stays responsive: call it again until it is empty.
        """
        try:
            with self._path.open("rb") as file:
                return self._read(file, limit)
        except (FileNotFoundError, NotADirectoryError):
            if self.offset:
                self._begin_again()
        except OSError:  # maybe temporary: a network disk may come back
            pass
        return []

    def _read(self, file: BinaryIO, limit: int) -> list[Line]:
        about = os.fstat(file.fileno())
        now = about.st_ino, about.st_size, about.st_mtime_ns
        if now == self._seen:
            return []
        if (self._seen is not None and now[0] != self._seen[0]) or not self._stands(file, about.st_size):
            self._begin_again()
            return []
        file.seek(self.offset)
        text = _some_lines(file, limit)
        if self.offset + len(text) == about.st_size or not text:  # all read: nothing to do before the file changes
            self._seen = now
        lines = []
        for line in text.split(b"\n")[:-1]:
            self.offset += len(line) + 1
            lines.append((self.offset, line))
        self._mark = text[-MARK:] if text else self._mark
        return lines

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
        self.offset, self._mark, self._seen = 0, None, None
        self.generation += 1


def _some_lines(file: BinaryIO, limit: int) -> bytes:
    """Whole lines, about `limit` bytes of them; a longer line alone, if its end is there."""
    text = file.read(limit)
    end = text.rfind(b"\n") + 1
    if end or len(text) < limit:
        return text[:end]
    text += file.readline()
    return text if text.endswith(b"\n") else b""


def is_verdict(line: bytes) -> bool:
    """Whether a line is the event that ends the run."""
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("kind") == "run_finished"


def whole_lines(path: Path, *, before: int | None = None) -> int:
    """The offset after the last whole line (up to `before`); 0 if there is none, or no file."""
    try:
        with path.open("rb") as file:
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
