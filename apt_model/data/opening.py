"""Open data files: decompressed, as bytes, lines or a whole, none of them longer than memory should have to hold.

A small file may hold a line without end: one of zeros, compressed or with holes. Knows bytes; knows nothing of formats.
"""

import bz2
import gzip
import io
import lzma
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow

from apt_model.errors import DataError

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
LONGEST_LINE = 2**28  # bytes; of a csv file, characters of a cell
LARGEST_WHOLE = 2**30  # bytes of what can only be read whole
PART = 2**22  # bytes of a file of lines that a stream reads as a shard of its own


def parts_of(file: Path) -> list[range]:
    """A file's bytes in parts that begin where lines do."""
    begins, end = {0}, file.stat().st_size
    with file.open("rb") as content:
        for about in range(PART, end, PART):
            content.seek(about)
            content.readline(LONGEST_LINE)
            begins.add(content.tell())
    return [range(*both) for both in pairwise([*sorted(begins - {end}), end])]


class _FilePart(io.RawIOBase):
    """A part of a file."""

    def __init__(self, file: Path, part: range) -> None:
        self._file, self._left = file.open("rb"), len(part)
        self._file.seek(part.start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        some = self._file.read(min(len(buffer), self._left))
        buffer[: len(some)] = some
        self._left -= len(some)
        return len(some)

    def close(self) -> None:
        self._file.close()
        super().close()


def opened(file: Path, part: range | None = None) -> Any:
    """A file, open to be read as bytes, decompressed; or a part of one that is not compressed."""
    if part is not None:
        return io.BufferedReader(_FilePart(file, part))
    match file.suffix.lower():
        case ".gz":
            return gzip.open(file, "rb")
        case ".bz2":
            return bz2.open(file, "rb")
        case ".xz":
            return lzma.open(file, "rb", format=lzma.FORMAT_XZ)  # of the older format, zeros are files without a byte
        case ".zst":
            packed: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd")
            return io.BufferedReader(packed)
    return file.open("rb")


def lines_of(file: Path, part: range | None = None) -> Iterator[bytes]:
    """The lines of a file, or of a part of it.

    Raises:
        DataError: one of them is longer than LONGEST_LINE.
    """
    with opened(file, part) as content:
        yield from _bounded(content, file, LONGEST_LINE)


def lines_of_whole(file: Path) -> Iterator[bytes]:
    """The lines of a file that may be one document, all of it in a single line.

    Raises:
        DataError: one of them is longer than LARGEST_WHOLE.
    """
    with opened(file) as content:
        yield from _bounded(content, file, LARGEST_WHOLE)


def text_lines_of(file: Path, newline: str | None = None, part: range | None = None) -> Iterator[str]:
    """The lines of a UTF-8 file, or of a part of it, as text, `newline` as in `open`.

    Raises:
        DataError: one of them is longer than LONGEST_LINE, or has a zero byte in it. UnicodeDecodeError: no UTF-8.
    """
    with io.TextIOWrapper(opened(file, part), encoding="utf-8-sig", newline=newline) as content:
        for number, line in enumerate(_bounded(content, file, LONGEST_LINE), start=1):
            if "\0" in line:  # a file with holes, as a crash leaves it, or no text at all
                raise DataError(f"{file}, line {number} has a zero byte in it", fix="correct or delete that line")
            yield line


def _bounded(content: Any, file: Path, longest: int) -> Iterator[Any]:
    number = 0
    while line := content.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise _too_large(f"{file}, line {number} is too long", longest)
        yield line


def whole(content: BinaryIO, file: Path) -> bytes:
    """What is left of an open file.

    Raises:
        DataError: more than LARGEST_WHOLE.
    """
    found = content.read(LARGEST_WHOLE + 1)
    if len(found) > LARGEST_WHOLE:
        raise _too_large(f"{file} is too large to be read whole", LARGEST_WHOLE)
    return found


def seekable(content: BinaryIO, file: Path) -> BinaryIO:
    """An open file in which one can go back: itself, or, of a compressed one, what it holds.

    Raises:
        DataError: as `whole`.
    """
    is_plain = isinstance(content, io.BufferedReader) and content.seekable()
    return content if is_plain else io.BytesIO(whole(content, file))


def _too_large(what: str, most: int) -> DataError:
    return DataError(what, got=f"more than {most:,} bytes", fix="split it, or save the rows as JSON lines, one a line")
