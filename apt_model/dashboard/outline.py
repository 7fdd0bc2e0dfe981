"""What the table of runs shows of a run: who learns from whom, the settings, the latest measurement, the verdict.

A few fields of four of its events, however long its record is. Knows events; knows nothing of files or browsers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from apt_model.dashboard.shown import MOST_CHARACTERS
from apt_model.events.cards import Reading
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, RunFinished, RunStarted
from apt_model.events.runfile import to_record

E = TypeVar("E", bound=Event)

SETTINGS = ("temperature", "alpha", "beta", "learning_rate", "num_epochs")
MEASURED = ("rows", "agreement", "ce", "laziness")
VALIDATED = ("agreement", "ce")
VERDICT = ("grade", "trend", "last_laziness")


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The latest of the events that the table needs; None for those not seen.

    Attributes:
        reading: the latest of the held-out rows.
        epoch: the latest with a validation.
    """

    started: RunStarted | None = None
    reading: Reading | None = None
    epoch: EpochFinished | None = None
    finished: RunFinished | None = None

    def after(self, event: Event) -> "Outline":
        """The same with a later event taken in."""
        if isinstance(event, RunStarted):
            return replace(self, started=event)
        if isinstance(event, RunFinished):
            return replace(self, finished=event)
        if isinstance(event, Reading) and event.unseen and event.measured is not None:
            return replace(self, reading=replace(event, rows=(), texts=(), topics=()))
        if isinstance(event, EpochFinished) and event.validation is not None:
            return replace(self, epoch=event)
        return self

    def over(self, other: "Outline") -> "Outline":
        """This one, with the other's events where this one has none or earlier ones."""
        return Outline(
            started=_later(self.started, other.started),
            reading=_later(self.reading, other.reading),
            epoch=_later(self.epoch, other.epoch),
            finished=_later(self.finished, other.finished),
        )

    def to_record(self) -> dict[str, Any]:
        """The fields that the page reads, under the names that they have in the events themselves."""
        finished = to_record(self.finished) if self.finished else {}
        measured = finished.get("unseen") or (to_record(self.reading)["measured"] if self.reading else None)
        validation = finished.get("validation") or (to_record(self.epoch)["validation"] if self.epoch else None)
        return {
            "started": _started(self.started),
            "measured": _picked(measured, MEASURED),
            "validation": _picked(validation, VALIDATED),
            "finished": _picked(finished or None, VERDICT),
        }


def _later(one: E | None, other: E | None) -> E | None:
    if one is None or other is None:
        return one or other
    return other if other.step > one.step else one


def _picked(record: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any] | None:
    return None if record is None else {name: _short(record.get(name)) for name in names}


def _short(value: Any) -> Any:
    """A text that another program wrote may be of any length."""
    return value[:MOST_CHARACTERS] if isinstance(value, str) else value


def _started(event: RunStarted | None) -> dict[str, Any] | None:
    if event is None:
        return None
    record = to_record(event)
    models = {role: _picked(record[role], ("name", "parameters")) for role in ("teacher", "student")}
    about = {name: _short(record[name]) for name in ("wall_time", "total_steps", "trained_by", "learns_from_teacher")}
    config = {name: record["config"].get(name) for name in SETTINGS}
    numbers = {name: value for name, value in config.items() if isinstance(value, int | float)}
    return {**about, **models, "config": numbers}
