"""The record of a run: a directory with `config.json`, `events.jsonl`, `summary.json` (and the student beside them).

Each event is one line of strict JSON, written whole and flushed, so that a reader can follow during training. Text is
stored unsanitised here and only here: whoever shows it sanitises it first. Knows nothing of its readers.
"""

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryFile
from types import UnionType
from typing import Any, BinaryIO, Literal, Union, get_args, get_origin, get_type_hints

from apt_model import faults
from apt_model.errors import UNWRITTEN, DataError, StorageError, reason_of
from apt_model.events.event import Event
from apt_model.events.records import KINDS, SCHEMA_VERSION, Notice, RunFinished, RunStarted
from apt_model.events.strict import plain, restore, shortened

EVENTS, CONFIG, SUMMARY, STUDENT = "events.jsonl", "config.json", "summary.json", "student"
MAX_LINE = 2**16  # bytes, newline included
ELSEWHERE = "choose another run directory"


class RunFile:
    """A sink that writes every event to the record in a run directory.

    A line that cannot be written (the disk is full) waits, and is written before the next one: no line is lost.

    Args:
        directory: created if missing; must not hold another run's record.
        resumes: append to the existing record; `load_state_dict` sets from where.

    Raises:
        StorageError: the directory cannot be written, or has a record already.
    """

    def __init__(self, directory: str | Path, *, resumes: bool = False) -> None:
        self.directory = check_run_directory(directory, resumes=resumes)
        self._waiting: list[tuple[dict[str, Any], bytes]] = []  # records with their lines
        self._lacks = False  # an event is in neither
        with self._writing("record.open"):
            self._file: BinaryIO = (self.directory / EVENTS).open("ab" if resumes else "xb", buffering=0)
            self._own, self._bytes = os.fstat(self._file.fileno()), self._file.seek(0, 2)

    def check(self) -> None:
        """Check that the file is still there under its name, as long as it was written.

        Raises:
            StorageError: it was removed, replaced, cut, or written to by somebody else.
        """
        path, seen = self.directory / EVENTS, None
        try:
            faults.hit("record.check")
            there = path.stat()
            if self._lacks:
                seen = "an event that no line could be made of"
            elif not os.path.samestat(there, self._own):
                seen = "another file in its place"
            elif there.st_size != self._bytes:
                seen = f"{there.st_size:,} bytes, where {self._bytes:,} were written"
        except UNWRITTEN as error:
            seen = reason_of(error)
        if seen is not None:
            what = f"the record {path} is no longer what this run has written"
            raise StorageError(what, got=seen, fix="start a new run in another directory")

    def state_dict(self) -> dict[str, Any]:
        """The record's length in bytes, and the lines that wait to be written.

        Raises:
            StorageError: the record cannot be synced to disk, or is lost.
        """
        self.check()
        with self._writing("record.sync"):
            os.fsync(self._file.fileno())  # a checkpoint relies on these bytes being on the disk
        return {"bytes": self._bytes, "waiting": [record for record, _ in self._waiting]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut off the lines after the checkpoint: the resumed run writes them again.

        Raises:
            ValueError: the record is shorter than it was.
        """
        if self._file.seek(0, 2) < state["bytes"]:
            raise ValueError(f"{EVENTS} has {self._file.tell()} bytes, not the {state['bytes']} it had")
        with self._writing("record.cut"):
            self._bytes = self._file.truncate(state["bytes"])
        self._waiting = [(record, line_of(record)) for record in state["waiting"]]

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
        """Close the file."""
        self._file.close()


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


def from_record(record: Mapping[str, Any]) -> Event:
    """The event that `to_record` made the record from.

    Raises:
        DataError: not a record of this schema.
    """
    kind: Any = KINDS.get(record.get("kind", ""))
    if kind is None or record.get("schema") != SCHEMA_VERSION:
        raise DataError(
            "not an event of this version",
            got=f"kind {record.get('kind')!r}, schema {record.get('schema')!r}",
            expected=f"schema {SCHEMA_VERSION}",
            fix="read it with the version of apt-model that wrote it",
        )
    if "nonfinite" in record:
        values = copy.deepcopy(dict(record))  # the caller's dict stays unchanged
        restore(values, values.pop("nonfinite"))
        record = values
    event = _reader(kind)(record)
    assert isinstance(event, Event)  # noqa: S101 - KINDS holds events only
    return event


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


def within_limit(line: bytes) -> bytes:
    """A line that somebody else may have written, without its end: itself up to MAX_LINE bytes, else shortened.

    Raises:
        ValueError: it is longer, and no JSON object.
    """
    if len(line) <= MAX_LINE:
        return line
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("no event")
    return encode(_to_fit(record))


def _to_fit(record: Mapping[str, Any]) -> dict[str, Any]:
    return shortened(record, fits=lambda shorter: len(encode(shorter)) < MAX_LINE)


def read_events(run: str | Path) -> Iterator[Event]:
    """The events of a run directory (or of an events.jsonl), in order, up to the last whole line.

    Raises:
        StorageError: no such file.
        DataError: a line is not an event; names the line.
    """
    path = Path(run) / EVENTS if Path(run).is_dir() else Path(run)
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    return
                yield _parse(line, path, number)
    except OSError as error:
        raise StorageError(f"no record at {path}", got=error.strerror, fix="give a run directory") from error


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


def _parse(line: bytes, path: Path, number: int) -> Event:
    try:
        return from_record(json.loads(line))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise DataError(f"{path}:{number} is not an event", got=str(error)[:200]) from error


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What makes the type out of the JSON values it was written as: dataclasses, tuples of them, optionals."""
    if isinstance(kind, type) and is_dataclass(kind):
        return _record_reader(kind)
    if kind in (int, float, str):
        return partial(_scalar, (int, float) if kind is float else kind)
    origin, arms = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        one = _reader(next(arm for arm in arms if arm is not type(None)))
        return lambda value: None if value is None else one(value)
    if origin is tuple:
        return _tuple_reader(arms)
    if origin is Literal:
        return partial(_member, arms)
    return lambda value: value


def _record_reader(kind: Any) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    readers = {one.name: _reader(hints[one.name]) for one in fields(kind)}
    return lambda value: kind(**{key: readers[key](item) for key, item in _items(value) if key in readers})


def _tuple_reader(arms: tuple[Any, ...]) -> Callable[[Any], Any]:
    if arms[-1] is Ellipsis:
        each = _reader(arms[0])
        return lambda value: tuple([each(item) for item in _expect((list, tuple), value)])
    kinds = [_reader(arm) for arm in arms]
    return lambda value: tuple(read(item) for read, item in zip(kinds, _expect((list, tuple), value), strict=True))


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    items: Iterable[tuple[Any, Any]] = _expect(Mapping, value).items()
    return items


def _scalar(kind: Any, value: Any) -> Any:
    if isinstance(value, bool):
        raise TypeError(f"{value!r} is no {kind}")
    return _expect(kind, value)


def _member(allowed: tuple[Any, ...], value: Any) -> Any:
    if value not in allowed:
        raise TypeError(f"{value!r} is none of {allowed}")
    return value


def _expect(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind}")
    return value
