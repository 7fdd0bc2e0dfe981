"""The runs to show: those given, or those in a given folder. Knows their paths; gives out ids, never paths."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_model.dashboard.tail import CHUNK, Tail, whole_lines
from apt_model.events.runfile import EVENTS

FRESH_SECONDS = 0.5
PEEK = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """One run: a run directory, which need not exist yet.

    Attributes:
        id: follows from the path, so that a page finds its run again after a restart.
        path: of its record.
        started: wall time in seconds; infinite if there is no record yet.
        steps, finished: when the record was last read.
    """

    id: str
    name: str
    path: Path
    started: float
    steps: int
    finished: bool

    def to_record(self) -> dict[str, Any]:
        """The fields that the page gets, as JSON values."""
        return {"id": self.id, "name": self.name, "finished": self.finished, "steps": self.steps}


class Catalog:
    """The runs at the given paths, newest first.

    Args:
        places: run directories, folders of run directories, or either before it exists. Links inside a folder are
            not followed.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places
        self._runs: dict[str, RecordedRun] = {}
        self._looked = -FRESH_SECONDS
        self._peeked: dict[Path, tuple[tuple[int, int], RecordedRun]] = {}

    def runs(self) -> list[RecordedRun]:
        """All runs, at most half a second old."""
        if time.monotonic() - self._looked >= FRESH_SECONDS:
            found = [self._peek(path) for place in self._places for path in _records(place)]
            self._runs = {run.id: run for run in sorted(found, key=lambda run: (-run.started, run.name))}
            self._looked = time.monotonic()
        return list(self._runs.values())

    def find(self, run_id: str) -> RecordedRun | None:
        """The run with an id; None if there is none."""
        if run_id not in self._runs:
            self.runs()
        return self._runs.get(run_id)

    def _peek(self, path: Path) -> RecordedRun:
        try:
            about = path.stat()
            state = about.st_size, about.st_mtime_ns
        except OSError:
            state = (0, 0)
        seen = self._peeked.get(path)
        if seen is None or seen[0] != state:
            seen = self._peeked[path] = state, _look(path)
        return seen[1]


def _records(place: Path) -> Iterator[Path]:
    """The record at a path, or those one level below; the path's own if there is none yet."""
    if (place / EVENTS).exists() or not place.is_dir():
        yield place / EVENTS
        return
    below = [one / EVENTS for one in place.iterdir() if not one.is_symlink()]
    records = [path for path in below if path.is_file() and not path.is_symlink()]
    yield from records or [place / EVENTS]


def _look(path: Path) -> RecordedRun:
    first = _parsed(line for _, line in Tail(path).read(PEEK)[:1])
    last = _parsed(line for _, line in reversed(Tail(path, _near_the_end(path)).read(CHUNK)))
    where = path.parent.absolute()
    started, step = first.get("wall_time"), last.get("step")
    return RecordedRun(
        id=hashlib.sha256(str(where).encode("utf-8", "surrogatepass")).hexdigest()[:12],
        name=where.name,
        path=path,
        started=started if isinstance(started, int | float) else float("inf"),
        steps=step if isinstance(step, int) else 0,
        finished=last.get("kind") == "run_finished",
    )


def _near_the_end(path: Path) -> int:
    """An offset at the end of a line, about PEEK bytes before the end of the record."""
    end = whole_lines(path)
    return whole_lines(path, before=end - PEEK) if end > PEEK else 0


def _parsed(lines: Iterator[bytes]) -> dict[str, Any]:
    """The first line that is a JSON object, parsed; {} if none is."""
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            return record
    return {}
