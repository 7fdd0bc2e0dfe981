"""The history of a run, downsampled for a page: bounded memory for a record of any length.

Of each stretch of steps it keeps those with the lowest and highest loss and the highest gradient norm; of cards the
laziest and the least lazy; of other events one per stretch, of readings one of unseen and one of learned rows. The
first, the last and those with NaN or infinity stay.
Knows the fields that it compares; knows nothing of files or browsers.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from apt_model.dashboard.shown import shown_of
from apt_model.dashboard.tail import Line
from apt_model.dashboard.thinning import Criterion, Thinned
from apt_model.events.cards import Reading
from apt_model.events.event import Event
from apt_model.events.recorded import Damage, Sieve
from apt_model.events.records import RunFinished, RunStarted
from apt_model.events.runfile import encode

STEPS, CARDS, OTHERS = 1_200, 200, 512  # buckets; up to three steps and two cards in one
OTHERS_BYTES = 600_000
PAGE_BYTES = 12_000_000


def highest(key: str) -> Criterion:
    """Prefers the larger value; a non-finite one is preferred to all."""

    def score(event: Event) -> float:
        value: float | None = getattr(event, key)
        if value is None:
            return -math.inf
        return value if math.isfinite(value) else math.inf

    return score


def lowest(key: str) -> Criterion:
    """Prefers the smaller value."""

    def score(event: Event) -> float:
        value: float | None = getattr(event, key)
        return -value if value is not None and math.isfinite(value) else -math.inf

    return score


def latest(event: Event) -> float:
    """Prefers the latest event: all score the same, and ties go to the later one."""
    return 0.0


class History:
    """A bounded selection of the lines of a record.

    Attributes:
        steps: optimizer steps done.
        finished: whether the last event is the end of the run.
    """

    def __init__(self) -> None:
        self.steps, self.finished = 0, False
        self._kinds = {
            "step": Thinned(STEPS, (lowest("loss"), highest("loss"), highest("grad_norm"))),
            "card": Thinned(CARDS, (lowest("laziness"), highest("laziness"))),
        }
        self._always: dict[int, bytes] = {}
        self._light: dict[int, bytes] = {}
        self._sieve = Sieve(shown_of)

    @property
    def seen(self) -> int:
        """How many lines it was given."""
        return self._sieve.lines

    @property
    def events(self) -> int:
        """How many of them were events."""
        return self.seen - (0 if self.damage is None else self.damage.count)

    @property
    def damage(self) -> Damage | None:
        """The lines that were no events; None if all were."""
        return self._sieve.damage

    def add(self, lines: Iterable[Line]) -> None:
        """Add lines of the record, in order; lines that are not events are left out, and counted as damage."""
        for place, line in lines:
            shown = self._sieve.take(line)
            if shown is not None:
                self._take(place, shown.event, shown.line)

    def _take(self, place: int, event: Event, line: bytes) -> None:
        self.steps = max(self.steps, event.step)
        self.finished = isinstance(event, RunFinished)
        if isinstance(event, RunStarted | RunFinished):
            self._always[place] = line
            return
        name = f"{event.kind} {event.unseen}" if isinstance(event, Reading) else event.kind
        kept = self._kinds.get(name)
        if kept is None:
            kept = self._kinds[name] = Thinned(OTHERS, (latest,), largest=OTHERS_BYTES)
        kept.add(place, event, line)

    def lines(self, *, largest: int = PAGE_BYTES) -> list[bytes]:
        """The selected lines, in order, in about `largest` bytes at most.

        If they are larger, cards and report cards lose their details (tokens; validation texts), evenly over the run;
        the newest keeps them.
        """
        kept = dict(self._always)
        for thinned in self._kinds.values():
            kept |= thinned.kept()
        heavy = sorted(place for name in ("card", "epoch_finished") for place in self._places(name))
        stride, size = 1, sum(map(len, kept.values()))
        while size > largest and stride < 2 * len(heavy):
            stride *= 2
            for index, place in enumerate(reversed(heavy)):
                if index % stride:
                    whole = kept[place]
                    kept[place] = self._lighter(place, whole)
                    size += len(kept[place]) - len(whole)
        self._light = {place: line for place, line in self._light.items() if place in kept}
        return [line for _, line in sorted(kept.items())]

    def _places(self, name: str) -> Iterable[int]:
        return self._kinds[name].kept() if name in self._kinds else ()

    def _lighter(self, place: int, line: bytes) -> bytes:
        if place not in self._light:
            self._light[place] = encode(_without_details(json.loads(line)))
        return self._light[place]


def _without_details(record: Mapping[str, Any]) -> dict[str, Any]:
    light = {key: value for key, value in record.items() if key != "detail"}
    if isinstance(record.get("validation"), dict):
        light["validation"] = {**record["validation"], "pairs": []}
    return light
