"""The runs to show: those given, or those in a given folder. Knows their paths; gives out ids, never paths.

One run that cannot be read, is damaged or does not answer is listed as such, and keeps no other from being listed.
"""

import hashlib
import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from apt_model.dashboard.aside import Lookout
from apt_model.dashboard.kept import kept_steps
from apt_model.dashboard.outline import Outline
from apt_model.dashboard.shown import damage_record, shown_of
from apt_model.dashboard.tail import CHUNK, Line, Tail, near_the_end
from apt_model.errors import DataError
from apt_model.events.event import Event
from apt_model.events.parse import event_of
from apt_model.events.recorded import Sieve, name_of
from apt_model.events.records import RunFinished, RunStarted
from apt_model.events.runfile import EVENTS

FRESH_SECONDS = 0.5
PATIENCE_SECONDS = 2.0  # for all disks together, then a moment for each
MOMENT_SECONDS = 0.2
CHECK_SECONDS = 0.3  # of looking for damage, each time that the runs are asked for
PEEK = 256 * 1024
NO_ANSWER = "the disk does not answer"


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """One run: a run directory, which need not exist yet.

    Attributes:
        id: follows from the path, so that a page finds its run again after a restart.
        path: of its record.
        started: wall time in seconds; infinite if there is no record yet, minus infinity if none of it can be read.
        steps, finished: when the record was last read.
        damage: what is damaged, as far as it was looked through, as the page gets it.
        outline: what the table of runs shows of it, as far as the record was looked through.
        family: its run id, and of a branch that of its parent, as its record has them; empty without a record.
        kept: the steps that have a checkpoint.
    """

    id: str
    name: str
    path: Path
    started: float = math.inf
    steps: int = 0
    finished: bool = False
    damage: dict[str, Any] | None = None
    outline: Outline = field(default_factory=Outline)
    family: tuple[str, ...] = ()
    kept: tuple[int, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """The fields that the page gets, as JSON values."""
        shown = {"id": self.id, "name": self.name, "finished": self.finished, "steps": self.steps}
        return {
            **shown,
            "damage": self.damage,
            "outline": self.outline.to_record(),
            "family": list(self.family),
            "kept": list(self.kept),
        }


class Catalog:
    """The runs at the given paths, newest first.

    Args:
        places: run directories, folders of run directories, or either before it exists. Links inside a folder are
            not followed.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = [place.absolute() for place in places]
        self._entries: dict[Path, _Entry] = {}
        self._runs: dict[str, RecordedRun] = {}
        self._looked = -FRESH_SECONDS
        self._lookout = Lookout()

    def runs(self) -> list[RecordedRun]:
        """All runs, at most half a second old."""
        if time.monotonic() - self._looked >= FRESH_SECONDS:
            until = time.monotonic() + PATIENCE_SECONDS
            paths = [path for place in self._places for path in self._below(place, until)]
            self._entries = {path: self._entries.get(path) or _Entry(path) for path in paths}
            for entry in self._entries.values():
                entry.answers = self._done(entry.look, until)
            entries = sorted(self._entries.values(), key=_Entry.order)
            self._check(entries)
            self._runs = {entry.run.id: entry.listed() for entry in entries}
            self._looked = time.monotonic()
        return list(self._runs.values())

    def known(self, run_id: str) -> RecordedRun | None:
        """The run with an id, if it was among those listed last."""
        return self._runs.get(run_id)

    def _below(self, place: Path, until: float) -> list[Path]:
        try:
            return self._lookout.ask(place, partial(_records, place), within=_left(until))
        except TimeoutError:
            return [place / EVENTS]

    def _check(self, entries: Iterable["_Entry"]) -> None:
        """Look on for damage, in the newest runs first, for a moment: the rest when the runs are asked for again."""
        until = time.monotonic() + CHECK_SECONDS
        for entry in entries:
            if entry.answers and time.monotonic() < until:
                self._done(partial(entry.check, until), until, of=entry)

    def _done(self, work: Callable[[], None], until: float, *, of: "_Entry | None" = None) -> bool:
        """Whether the work is done in time; what is not may come to its end later."""
        try:
            self._lookout.ask(of or work, work, within=_left(until))
        except TimeoutError:
            return False
        return True


class _Entry:
    """A run of the catalog: what it told last, and how far its record was looked through for damage.

    Attributes:
        run: as it was when the record was last read.
        answers: whether its disk answered the last time.
    """

    def __init__(self, path: Path) -> None:
        where = path.parent
        run_id = hashlib.sha256(str(where).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        self.run, self.answers = RecordedRun(id=run_id, name=name_of(where), path=path), True
        self._seen: tuple[int, int] | None = None
        self._tail, self._sieve = Tail(path), Sieve(shown_of)
        self._outline = Outline()  # of what was looked through

    def look(self) -> None:
        """Read beginning and end of the record, if it has changed."""
        try:
            now = self.run.path.stat()
            state = now.st_size, now.st_mtime_ns
        except OSError:
            state = (0, 0)
        if state == self._seen:
            return
        path = self.run.path
        head = Tail(path)
        lines = head.read(PEEK)
        first = _first_event(lines)
        last = _first_event(reversed(Tail(path, near_the_end(path, PEEK)).read(CHUNK)))
        started = -math.inf if lines or head.trouble is not None else math.inf
        if first is not None and math.isfinite(first.wall_time):
            started = first.wall_time
        steps, finished = (last.step, isinstance(last, RunFinished)) if last is not None else (0, False)
        outline = Outline()
        for event in (first, last):
            outline = outline if event is None else outline.after(event)
        self.run = replace(self.run, started=started, steps=steps, finished=finished, outline=outline)
        self._seen = state
        self.run = replace(self.run, family=_family(first), kept=tuple(kept_steps(path.parent)))

    def order(self) -> tuple[bool, float, str]:
        """By what runs are sorted: the newest first, what cannot be opened last."""
        return not self.answers, -self.run.started, self.run.name

    def check(self, until: float) -> None:
        """Look for damage, and for what the outline needs, from where the last check ended."""
        generation = self._tail.generation
        while time.monotonic() < until:
            lines = self._tail.read(PEEK)
            if generation != self._tail.generation:
                generation, self._sieve, self._outline = self._tail.generation, Sieve(shown_of), Outline()
            elif not lines:
                return
            for _, line in lines:
                shown = self._sieve.take(line)
                self._outline = self._outline if shown is None else self._outline.after(shown.event)

    def listed(self) -> RecordedRun:
        """The run with the damage found so far, and the outline."""
        trouble = self._tail.trouble if self.answers else NO_ANSWER
        outline = self.run.outline.over(self._outline)
        return replace(self.run, damage=damage_record(self._sieve.damage, trouble), outline=outline)


def _left(until: float) -> float:
    return max(until - time.monotonic(), MOMENT_SECONDS)


def _records(place: Path) -> list[Path]:
    """The record at a path, or those one level below; the path's own if there is none yet."""
    record = place / EVENTS
    if _is_there(record) or not os.path.isdir(place):  # noqa: PTH112 - of a folder that may not be entered: False
        return [record]
    try:
        below = [one / EVENTS for one in place.iterdir() if not one.is_symlink()]
    except OSError:
        return [record]
    return [path for path in below if _is_there(path)] or [record]


def _is_there(record: Path) -> bool:
    """Whether there is a record, of whatever form: one that may not be looked at counts, a link does not."""
    try:
        return not stat.S_ISLNK(record.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _family(first: Event | None) -> tuple[str, ...]:
    if not isinstance(first, RunStarted):
        return ()
    return (first.run_id,) if first.branch is None else (first.run_id, first.branch.run_id)


def _first_event(lines: Iterable[Line]) -> Event | None:
    for _, line in lines:
        with suppress(DataError):
            return event_of(line)
    return None
