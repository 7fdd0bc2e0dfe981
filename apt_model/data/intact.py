"""Files that are still what they were: data between two looks at it, and what a cache keeps since it was written.

Arrow has no checksums: a file cut between two of its batches is a shorter one, and a flipped bit makes another row.
Knows files; knows nothing of rows.
"""

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from apt_model.errors import DataError

SMALL = 2**26  # bytes: hashing them takes no time worth mentioning
END_OF_STREAM = (b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\0")  # of Arrow's today, and of those before 0.15
AT_ONCE = 2**20

Stamp = tuple[str, int, int, int]


def stamps_of(files: Sequence[Path]) -> list[Stamp]:
    """What tells a changed file without reading it: its name, size, and both times of change.

    Both times: a file that another one was moved or copied over may have kept the time of its content.
    """
    seen = [(str(file.absolute()), file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in seen]


def hashes_of(files: Sequence[Path]) -> list[str]:
    """The hashes of the small ones of some files: of two writes at almost the same time all stamps may be the same."""
    return [_sha256(file) if file.stat().st_size <= SMALL else "" for file in files]


def refuse_changed(files: Sequence[Path], stamps: Sequence[Any]) -> None:
    """Refuse files that have other stamps than before.

    Raises:
        DataError: names the first one.
    """
    for file, before in zip(files, stamps, strict=True):
        if not file.exists() or stamps_of([file]) != [tuple(before)]:
            fix = "begin again when nobody writes to it"
            raise DataError(f"{file} has changed while it was read", fix=fix)


def refuse_cut(content: BinaryIO, file: Path) -> None:
    """Refuse an Arrow stream that was not written to its end: what there is of it may look like a whole one.

    Raises:
        DataError: names it.
    """
    size = content.seek(0, os.SEEK_END)
    content.seek(max(0, size - len(END_OF_STREAM[0])))
    if not content.read().endswith(END_OF_STREAM):
        raise DataError(f"{file} is cut off: the mark at its end is missing", fix="get or make it again")


def seal(file: Path) -> None:
    """Write a file's size, checksum and times of change beside it."""
    beside = _seal_of(file)
    started = beside.with_suffix(f".{os.getpid()}")
    started.write_text(f"{_sum(file)}\n{_times(file)}", "utf-8")
    started.replace(beside)


def is_sealed(file: Path) -> bool:
    """Whether a file is the one that was sealed, to the byte; of a large one the times of change tell, if they can."""
    try:
        found, _, times = _seal_of(file).read_text("utf-8").partition("\n")
        is_untouched = file.stat().st_size > SMALL and times == _times(file)
        return is_untouched or found == _sum(file)
    except (OSError, ValueError):
        return False


def _times(file: Path) -> str:
    """Size and both times of change."""
    _, *numbers = stamps_of([file])[0]
    return " ".join(map(str, numbers))


def _seal_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sum")


def _sum(file: Path) -> str:
    size = found = 0
    with file.open("rb") as content:
        while part := content.read(AT_ONCE):
            size, found = size + len(part), zlib.crc32(part, found)
    return f"{size} {found:08x}"


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
