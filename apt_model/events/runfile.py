"""The record of a run: a directory with `config.json`, `events.jsonl`, `summary.json` (and the student beside them).

One event is one line of strict JSON, written whole and flushed, so a reader may follow while training goes on. Raw
text is kept here and only here: whoever shows it sanitises it first. Knows nothing of who reads.
"""

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryFile
from types import UnionType
from typing import Any, BinaryIO, Literal, Union, get_args, get_origin, get_type_hints

from apt_model.errors import DataError, StorageError
from apt_model.events.records import KINDS, SCHEMA_VERSION, Event, RunFinished, RunStarted
from apt_model.events.strict import plain, restore, shortened

EVENTS, CONFIG, SUMMARY, STUDENT = "events.jsonl", "config.json", "summary.json", "student"
MAX_LINE = 2**16  # bytes, with the line's end


class RunFile:
    """A sink that keeps every event in a run directory.

    A line that the disk does not take waits, and is written before the next one: nothing is left out in between.

    Args:
        directory: made if it is missing; must not hold another run's record.
        resumes: go on with the record that is there; `load_state_dict` says from where.

    Raises:
        StorageError: the directory cannot be written, or has a record already.
    """

    def __init__(self, directory: str | Path, *, resumes: bool = False) -> None:
        self.directory = check_run_directory(directory, resumes=resumes)
        self._waiting: list[tuple[dict[str, Any], bytes]] = []  # records with their lines
        try:
            self._file: BinaryIO = (self.directory / EVENTS).open("ab" if resumes else "xb", buffering=0)
        except OSError as error:
            raise self._lost(error) from error

    def state_dict(self) -> dict[str, Any]:
        """How far the record goes, and what waits to be written.

        Raises:
            StorageError: the disk does not keep what was written.
        """
        try:
            os.fsync(self._file.fileno())  # a checkpoint is on the disk for good: so must be what it counts on
        except OSError as error:
            raise self._lost(error) from error
        return {"bytes": self._file.seek(0, 2), "waiting": [record for record, _ in self._waiting]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut off what came after: it will be said again.

        Raises:
            ValueError: the record is shorter than it was.
        """
        if self._file.seek(0, 2) < state["bytes"]:
            raise ValueError(f"{EVENTS} has {self._file.tell()} bytes, not the {state['bytes']} it had")
        self._file.truncate(state["bytes"])
        self._waiting = [(record, line_of(record)) for record in state["waiting"]]

    def emit(self, event: Event) -> None:
        """Append one line; the run's settings and its verdict also get a file of their own.

        Raises:
            StorageError: it could not be written; it waits, and the next call tries again.
        """
        record = to_record(event)
        self._waiting.append((record, line_of(record)))
        try:
            while self._waiting:
                self._write(*self._waiting[0])
                del self._waiting[0]
        except OSError as error:
            raise self._lost(error) from error

    def _write(self, record: Mapping[str, Any], line: bytes) -> None:
        own = {RunStarted.kind: CONFIG, RunFinished.kind: SUMMARY}.get(record["kind"])
        if own is not None:
            write_json(self.directory / own, record)
        self._append(line)

    def _lost(self, error: OSError) -> StorageError:
        fix = "free some space, then resume the run"
        return StorageError(f"the record {self.directory / EVENTS} cannot be written", got=error.strerror, fix=fix)

    def _append(self, line: bytes) -> None:
        """A line whole or not at all: a disk that fills up takes a part of it without an error."""
        start, written = self._file.seek(0, 2), 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError:
            self._file.truncate(start)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def check_run_directory(directory: str | Path, *, resumes: bool = False) -> Path:
    """Make the directory if it is missing, and see that a run can be written there, or gone on with.

    Raises:
        StorageError: it cannot be written, holds a run already, or holds none that could go on.
    """
    path = Path(directory)
    if resumes and not (path / EVENTS).exists():
        raise StorageError(f"{path} holds no run to resume", fix="check the path")
    if not resumes and (path / EVENTS).exists():
        raise StorageError(f"{path} already holds a run", fix="choose another run directory, or resume it")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            return path
    except OSError as error:
        fix = "choose another run directory"
        raise StorageError(f"run directory {path} cannot be written", got=error.strerror, fix=fix) from error


def to_record(event: Event) -> dict[str, Any]:
    """An event as a dict of JSON values. Numbers that are not finite become null; `nonfinite` names their places."""
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
            fix="read it with the apt-model that wrote it",
        )
    if "nonfinite" in record:
        values = copy.deepcopy(dict(record))  # the caller's own stays as it is
        restore(values, values.pop("nonfinite"))
        record = values
    event = _reader(kind)(record)
    assert isinstance(event, Event)  # noqa: S101 - KINDS holds events only
    return event


def encode(record: Mapping[str, Any]) -> bytes:
    """One line of strict JSON in UTF-8; a lone surrogate is written as an escape, so that it cannot break the file."""
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def line_of(record: Mapping[str, Any]) -> bytes:
    """The record's line in the file; where it would be longer than MAX_LINE, shortened, with `truncated` in it."""
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
    """Write a small JSON file so that a reader sees the old one or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    try:
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
        hints = get_type_hints(kind)
        readers = {one.name: _reader(hints[one.name]) for one in fields(kind)}
        return lambda value: kind(**{key: readers[key](item) for key, item in _items(value) if key in readers})
    if kind in (int, float, str):
        return partial(_scalar, (int, float) if kind is float else kind)
    origin, arms = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        one = _reader(next(arm for arm in arms if arm is not type(None)))
        return lambda value: None if value is None else one(value)
    if origin is tuple and arms[-1] is Ellipsis:
        each = _reader(arms[0])
        return lambda value: tuple([each(item) for item in _expect((list, tuple), value)])
    if origin is tuple:
        kinds = [_reader(arm) for arm in arms]
        return lambda value: tuple(read(item) for read, item in zip(kinds, _expect((list, tuple), value), strict=True))
    if origin is Literal:
        return partial(_member, arms)
    return lambda value: value


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
