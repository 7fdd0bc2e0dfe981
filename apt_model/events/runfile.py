"""The record of a run: a directory with `config.json`, `events.jsonl`, `summary.json` (and the student beside them).

Each event is one line of strict JSON, written whole and flushed, so that a reader can follow during training. Text is
stored unsanitised here and only here: whoever shows it sanitises it first. Knows nothing of its readers.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from apt_model import faults
from apt_model.errors import UNWRITTEN, StorageError, reason_of
from apt_model.events.event import Event
from apt_model.events.recorded import strict_events
from apt_model.events.records import SCHEMA_VERSION, Notice, RunFinished, RunStarted
from apt_model.events.strict import plain, shortened

EVENTS, CONFIG, SUMMARY, STUDENT = "events.jsonl", "config.json", "summary.json", "student"
MAX_LINE = 2**16  # bytes, newline included
SECOND_LOOK = 0.2  # seconds
ELSEWHERE = "choose another run directory"


class RunFile:
    """A sink that writes every event to the record in a run directory.

    A line that cannot be written (the disk is full) waits, and is written before the next one: no line is lost.

    Args:
        directory: created if missing; must not hold another run's record.
        resumes: append to the existing record; `load_state_dict` sets from where.
        begins_anew: of a run that resumes without a checkpoint: the record that is there is kept beside the new one.

    Attributes:
        kept: where it is kept; None if there was none.

    Raises:
        StorageError: the directory cannot be written, or has a record already.
    """

    def __init__(self, directory: str | Path, *, resumes: bool = False, begins_anew: bool = False) -> None:
        self.directory = check_run_directory(directory, resumes=resumes)
        self.kept: Path | None = None
        self._waiting: list[tuple[dict[str, Any], bytes]] = []  # records with their lines
        self._lacks = False  # an event is in neither
        with self._writing("record.open"):
            if resumes and begins_anew and (self.directory / EVENTS).stat().st_size:
                self.kept = _put_aside(self.directory / EVENTS)
                resumes = False
            self._file: BinaryIO = (self.directory / EVENTS).open("ab" if resumes else "xb", buffering=0)
            self._own, self._bytes = os.fstat(self._file.fileno()), self._file.seek(0, 2)

    def check(self) -> None:
        """Check that the file is still there under its name, as long as it was written.

        Raises:
            StorageError: it was removed, replaced, cut, or written to by somebody else.
        """
        seen = self._look()
        if seen is not None and not self._lacks:
            time.sleep(SECOND_LOOK)  # a network disk may be late in telling of what was written
            seen = self._look()
        if seen is not None:
            what = f"the record {self.directory / EVENTS} is no longer what this run has written"
            raise StorageError(what, got=seen, fix="start a new run in another directory")

    def _look(self) -> str | None:
        """What is seen instead of the record; None if it is there."""
        if self._lacks:
            return "an event that no line could be made of"
        try:
            faults.hit("record.check")
            there = (self.directory / EVENTS).stat()
        except UNWRITTEN as error:
            return reason_of(error)
        if not os.path.samestat(there, self._own):
            return "another file in its place"
        is_whole = there.st_size == self._bytes
        return None if is_whole else f"{there.st_size:,} bytes, where {self._bytes:,} were written"

    def state_dict(self) -> dict[str, Any]:
        """The record's length in bytes, a hash of its first line, and the lines that wait to be written.

        Raises:
            StorageError: the record cannot be synced to disk, or is lost.
        """
        self.check()
        with self._writing("record.sync"):
            os.fsync(self._file.fileno())  # a checkpoint relies on these bytes being on the disk
            first = self._first()
        return {"bytes": self._bytes, "first": first, "waiting": [record for record, _ in self._waiting]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut off the lines after the checkpoint: the resumed run writes them again.

        Raises:
            ValueError: the record is shorter than it was, or another run's.
        """
        with self._writing("record.look"):
            length, first = self._file.seek(0, 2), self._first()
        if length < state["bytes"]:
            raise ValueError(f"{EVENTS} has {length} bytes, not the {state['bytes']} it had")
        if first != state["first"]:
            raise ValueError(f"{EVENTS} is another run's: its first line is not the one it had")
        with self._writing("record.cut"):
            self._bytes = self._file.truncate(state["bytes"])
        self._waiting = [(record, line_of(record)) for record in state["waiting"]]

    def take_over(self, lines: Iterable[bytes], waiting: Sequence[dict[str, Any]]) -> None:
        """Append lines of the run that a branch left, and those that waited to be written there.

        Raises:
            StorageError: they cannot be read or written.
        """
        self.check()
        for line in lines:
            with self._writing("record.begin"):
                self._append(line)
        self._waiting += [(record, line_of(record)) for record in waiting]

    def emit(self, event: Event) -> None:
        """Append one line; the run's settings and verdict are also written to `config.json` and `summary.json`.

        The address of the browser page is left out: it is gone when the run is looked at again.

        Raises:
            StorageError: it could not be written, or the file is lost; the next call tries again.
        """
        if isinstance(event, Notice) and event.key.startswith("watch."):
            return
        try:
            faults.hit("record.line")
            record = to_record(event)
            self._waiting.append((record, line_of(record)))
        except BaseException:
            self._lacks = True
            raise
        self.check()
        with self._writing("record.begin"):
            while self._waiting:
                record, line = self._waiting[0]
                if (own := {RunStarted.kind: CONFIG, RunFinished.kind: SUMMARY}.get(record["kind"])) is not None:
                    write_json(self.directory / own, record)
                self._append(line)
                del self._waiting[0]

    def _first(self) -> str:
        """Hash of the first line, which names the run and when it began."""
        with (self.directory / EVENTS).open("rb") as file:
            return hash_of_line(file.readline(MAX_LINE))

    @contextmanager
    def _writing(self, point: str) -> Iterator[None]:
        try:
            faults.hit(point)
            yield
        except UNWRITTEN as error:
            what, fix = (
                f"the record {self.directory / EVENTS} cannot be written",
                "free some space, then resume the run",
            )
            raise StorageError(what, got=reason_of(error), fix=fix) from error

    def _append(self, line: bytes) -> None:
        """Write a line whole or not at all: a disk that fills up can accept a part of it without an error."""
        written = 0
        try:
            self._file.seek(self._bytes)
            while written < len(line):
                faults.hit("record.write")
                written += self._file.write(line[written:])
        except BaseException:
            with suppress(OSError):  # what cannot be cut off either is seen by the next `check`
                self._file.truncate(self._bytes)
            raise
        self._bytes += written

    def close(self) -> None:
        """Close the file.

        Raises:
            StorageError: a network disk says only now that it could not keep what was written.
        """
        with self._writing("record.close"):
            self._file.close()


def hash_of_line(line: bytes) -> str:
    """Hash of a record's first line, by which a checkpoint knows the record again."""
    return blake2b(line, digest_size=16).hexdigest()


def _put_aside(record: Path) -> Path:
    """Rename a record to the first free of `events-before-1.jsonl`, `events-before-2.jsonl` …"""
    faults.hit("record.aside")
    free = next(path for n in count(1) if not (path := record.with_name(f"events-before-{n}.jsonl")).exists())
    return record.rename(free)


def check_run_directory(directory: str | Path, *, resumes: bool = False) -> Path:
    """Create the directory if it is missing, and check that a run can be started there, or resumed.

    Raises:
        StorageError: it cannot be written, holds a run already, or holds no run to resume.
    """
    path = Path(directory)
    try:
        faults.hit("record.directory")
        if resumes != (path / EVENTS).exists():
            if resumes:
                raise StorageError(f"{path} holds no run to resume", fix="check the path")
            raise StorageError(f"{path} already holds a run", fix=f"{ELSEWHERE}, or resume it")
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            return path
    except StorageError:
        raise
    except UNWRITTEN as error:
        raise StorageError(f"run directory {path} cannot be written", got=reason_of(error), fix=ELSEWHERE) from error


def to_record(event: Event) -> dict[str, Any]:
    """An event as a dict of JSON values. NaN and infinity become null; `nonfinite` lists their places."""
    nonfinite: dict[str, str] = {}
    record = {"schema": SCHEMA_VERSION, "kind": event.kind, **plain(event, nonfinite)}
    if nonfinite:
        record["nonfinite"] = nonfinite
    return record


def encode(record: Mapping[str, Any]) -> bytes:
    """A record as strict JSON in UTF-8; a lone surrogate is escaped, so that it cannot break the file."""
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def line_of(record: Mapping[str, Any]) -> bytes:
    """The record's line in the file; one longer than MAX_LINE is shortened, and marked as `truncated`."""
    line = encode(record) + b"\n"
    if len(line) <= MAX_LINE:
        return line
    return encode(_to_fit(record)) + b"\n"


def _to_fit(record: Mapping[str, Any]) -> dict[str, Any]:
    return shortened(record, fits=lambda shorter: len(encode(shorter)) < MAX_LINE)


def record_of(run: str | Path) -> Path:
    """The record of a run directory; the path itself where it is no directory."""
    return Path(run) / EVENTS if os.path.isdir(run) else Path(run)  # noqa: PTH112 - of what may not be looked at: False


def read_events(run: str | Path) -> Iterator[Event]:
    """The events of a run directory (or of an events.jsonl), in order, up to the last whole line.

    Raises:
        StorageError: no such file, or it cannot be read.
        DataError: a line is not an event; names the line.
    """
    return strict_events(record_of(run))


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a small JSON file atomically: a reader sees the old or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        faults.hit("record.about")
        temporary.write_bytes(json.dumps(record, ensure_ascii=True, allow_nan=False, indent=2).encode() + b"\n")
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
