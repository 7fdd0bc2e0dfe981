"""Sinks for events, and the one place that isolates training from a failing display.

The record is not a display: if it cannot be written, the training loop is told. Knows nothing of what a sink does with
an event.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from apt_model.errors import StorageError, reason_of
from apt_model.events.event import Event
from apt_model.events.records import Notice, RunFinished

T = TypeVar("T")
Scorer = Callable[[Event], Event]
EventWatcher = Callable[[Event], Notice | None]


class Sink(Protocol):
    """Receives events: a terminal, a file, a tracker, or ten lines of your own."""

    def emit(self, event: Event) -> None:
        """Take one event. An exception detaches this sink for the rest of the run."""

    def close(self) -> None:
        """The run is over."""


class Guard:
    """Runs code that must not break training; keeps the first failure under each name."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}

    def run(self, name: str, action: Callable[[], T], otherwise: T) -> T:
        """`action()`, or `otherwise` if it raises (KeyboardInterrupt and SystemExit pass)."""
        try:
            return action()
        except Exception as error:  # noqa: BLE001 - the one place that isolates the display from training
            described = "".join(traceback.format_exception_only(error)).strip()
            self.failures.setdefault(name, f"{name}: {described}"[:500])
            return otherwise


class Audience:
    """Passes events through a scorer to sinks; a sink that fails is reported once and detached.

    Args:
        sinks: receive each event, in order.
        record: receives each event first. It is no display: `lost` holds its error if it cannot be written.
        scorer: adds the lesson's judgement to an event; None passes events on unchanged.
        watchers: called with each event after the sinks; a notice that one returns is delivered next.
        guard: shared with other code that must not break training.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        record: Sink | None = None,
        scorer: Scorer | None = None,
        watchers: Sequence[EventWatcher] = (),
        guard: Guard | None = None,
    ) -> None:
        self.guard = guard or Guard()
        self.lost: StorageError | None = None
        self.step = 0  # of the last event
        self._sinks, self._record = list(sinks), record
        self._scorer, self._watchers = scorer, watchers
        self._told: set[str] = set()
        self._detached: set[str] = set()

    def __call__(self, event: Event) -> Event:
        """Score and deliver one event; returns the scored event."""
        self.step = event.step
        if self._scorer is not None:
            event = self.guard.run("scorer", partial(self._scorer, event), event)
        if isinstance(event, RunFinished):
            event = replace(event, failures=tuple(self.guard.failures.values()))
        self._deliver(event)
        for watcher in self._watchers:
            notice = self.guard.run(type(watcher).__name__, partial(watcher, event), None)
            if notice is not None:
                self._deliver(notice)
        for name in self.guard.failures.keys() - self._told:
            self._told.add(name)
            self._tell(event, name)
        return event

    def _deliver(self, event: Event) -> None:
        if self._record is not None:
            self._put_down(self._record, event)
        heard = [self.guard.run(type(sink).__name__, partial(_emit, sink, event), False) for sink in self._sinks]
        self._detached |= {type(sink).__name__ for sink, well in zip(self._sinks, heard, strict=True) if not well}
        self._sinks = [sink for sink, well in zip(self._sinks, heard, strict=True) if well]

    def _put_down(self, record: Sink, event: Event) -> None:
        try:
            record.emit(event)
            self.lost = None
        except StorageError as error:  # it tries again with the next event
            self.lost = error
        except Exception as error:  # noqa: BLE001 - whatever it is, a record without this event is not whole
            self.lost = StorageError("the record cannot be written", got=reason_of(error), fix="resume the run")

    def _tell(self, event: Event, name: str) -> None:
        """Report a failure to the remaining sinks, and on stderr if the failed one may have been the only display."""
        values = {"failure": self.guard.failures[name]}
        self._deliver(Notice(run_id=event.run_id, step=event.step, key="notice.display_failed", values=values))
        if name in self._detached or not self._sinks:
            line = ascii(f"the display failed, training goes on: {values['failure']}")
            self.guard.run("stderr", partial(print, "warning:", line, file=sys.stderr), None)

    def close(self) -> None:
        """Close every sink still attached."""
        for sink in [*self._sinks, *([self._record] if self._record is not None else [])]:
            self.guard.run(type(sink).__name__, sink.close, None)
        self._sinks, self._record = [], None


def _emit(sink: Sink, event: Event) -> bool:
    sink.emit(event)
    return True
