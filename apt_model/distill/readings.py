"""Readings of the fixed rows: when they are due, and the events that tell them.

Knows the timetable; knows nothing of how rows are chosen or read, or of what the numbers mean.
"""

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from torch import nn

from apt_model.config.sections import DisplayConfig
from apt_model.data.batch import Batch
from apt_model.distill.fixed_rows import RowSet
from apt_model.distill.reporter import Reporter
from apt_model.events.cards import Reading
from apt_model.events.results import RowReading
from apt_model.events.sinks import Guard

A_RUN, APART, UNKNOWN = 6, 50, 100  # readings in a run; steps between two, at least, and where its length is unknown


def steps_between(wanted: int | None, total_steps: int | None) -> int:
    """Steps between two readings: as `wanted`, else about six in a run of known length."""
    if wanted is not None:
        return wanted
    return UNKNOWN if total_steps is None else max(APART, -(-total_steps // A_RUN))


class Readings:
    """Reads the fixed rows before the first step, at set steps, at each epoch's end and at the run's end.

    The first of the sets is read at all these times, the other one at the start, the end, and the ends of epochs that
    are not short; none twice at one step.
    The first failure ends the readings.

    Args:
        display: has the frequency.
        sets: unseen rows and learned ones, or learned ones alone; empty: there are no readings.
        report: tells the audience.
        guard: isolates and reports failures.
        total_steps: of the run; None if unknown.

    Attributes:
        has_begun: the rows have been chosen and read for the first time.
    """

    def __init__(
        self,
        display: DisplayConfig,
        sets: Sequence[RowSet],
        *,
        report: Reporter,
        guard: Guard,
        total_steps: int | None,
    ) -> None:
        self._sets, self._report, self._guard = list(sets), report, guard
        self._every = steps_between(display.reading_frequency, total_steps)
        self.has_begun = False
        self._read_at: dict[str, int] = {}  # kind of rows → step of its last reading
        self._other: set[str] = set()  # kinds whose rows are not those from before the run was interrupted

    def state_dict(self) -> dict[str, Any]:
        """When each kind was read last, and rows that cannot be found again, as JSON values."""
        return {
            "begun": self.has_begun,
            "read_at": self._read_at,
            "hashes": {_kind(one): one.fingerprint for one in self._sets},
            "rows": {_kind(one): one.state_dict() for one in self._sets},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of `state_dict`. Rows of other text are read as for the first time, and then told of."""
        self.has_begun, self._read_at = bool(state["begun"]), dict(state["read_at"])
        for one in self._sets:
            one.load_state_dict(state["rows"].get(_kind(one), []))
        if not self.has_begun:
            return
        self._choose((), ())
        for kind in [_kind(one) for one in self._sets if one.fingerprint != state["hashes"].get(_kind(one))]:
            self._read_at.pop(kind, None)
            self._other.add(kind)

    @property
    def waits(self) -> bool:
        """Whether the reading before the first step is still to be taken."""
        return bool(self._sets) and not self.has_begun

    def begin(
        self, student: nn.Module, window: Iterable[Batch], validation: Iterable[Batch] = (), *, epoch: int
    ) -> None:
        """Choose the rows, and read them before the first step.

        Rows that cannot be read by index are those of `window`, the step's batches on the CPU, or of `validation`.
        """
        if self.waits:
            self.has_begun = True
            self._choose(list(window), list(validation))
            self._take(student, self._sets, epoch=epoch if self._report.step else 0)

    def after_step(self, student: nn.Module, *, step: int, epoch: int) -> None:
        """Read the first set if a reading is due."""
        if step % self._every == 0:
            self._take(student, self._sets[:1], epoch=epoch)

    def after_epoch(self, student: nn.Module, *, epoch: int) -> None:
        """Read the first set at an epoch's end; the other one too, unless that was a short time ago."""
        step = self._report.step
        others = [one for one in self._sets[1:] if step - self._read_at.get(_kind(one), step) >= self._every]
        self._take(student, [*self._sets[:1], *others], epoch=epoch)

    def at_end(self, student: nn.Module, *, epoch: int) -> None:
        """Read both sets at the run's end."""
        self._take(student, self._sets, epoch=epoch)

    def _choose(self, window: Sequence[Batch], validation: Sequence[Batch]) -> None:
        def choose() -> list[RowSet]:
            for one in self._sets:
                one.choose(validation if one.unseen else window)
            return self._sets

        self._sets = self._guard.run("reading", choose, [])

    def _take(self, student: nn.Module, sets: Sequence[RowSet], *, epoch: int) -> None:
        for one in sets if self.has_begun else ():
            if self._read_at.get(_kind(one)) == self._report.step:
                continue
            started = time.perf_counter()
            rows: tuple[RowReading, ...] | None = self._guard.run("reading", partial(one.read, student), None)
            if rows is None:
                self._sets = []
                return
            self._tell(one, rows, epoch=epoch, seconds=time.perf_counter() - started)

    def _tell(self, one: RowSet, rows: tuple[RowReading, ...], *, epoch: int, seconds: float) -> None:
        is_first = _kind(one) not in self._read_at
        if _kind(one) in self._other:
            self._report.say(f"notice.other_rows_{_kind(one)}")
        self._read_at[_kind(one)] = self._report.step
        if rows:
            texts = one.texts(self._report.whole_text) if is_first else ()
            self._report.tell(Reading, epoch=epoch, unseen=one.unseen, rows=rows, texts=texts, seconds=seconds)


def _kind(one: RowSet) -> str:
    return "unseen" if one.unseen else "learned"
